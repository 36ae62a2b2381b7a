"""The prepared data set: the table every later stage reads."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boneage.config import TRUTH
from boneage.run_folder import atomic_path

_HEADER = ("id", "part", "months", "male", "height", "width", "path")


@dataclass(frozen=True)
class Samples:
    """All images of a run, sorted by id; every array has one row an image.

    Attributes:
        ids: The images' ids.
        parts: Which part of the split each belongs to.
        months: Ages, float32.
        male: Sexes, bool.
        shapes: Heights and widths in pixels, int64 (N, 2).
        paths: The image files.
        truth: Annotated boxes by name ("Hand", "Wrist", ...), float64 (N, 4) in pixels of the
            image; NaN where there is none.
    """

    ids: tuple[str, ...]
    parts: np.ndarray
    months: np.ndarray
    male: np.ndarray
    shapes: np.ndarray
    paths: tuple[Path, ...]
    truth: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, part: str) -> np.ndarray:
        """Rows of one part of the split."""
        return np.flatnonzero(self.parts == part)

    def boxed_rows(self, name: str, part: str) -> np.ndarray:
        """Rows of one part of the split that have an annotated box of that name."""
        if name not in self.truth:
            return np.array([], dtype=np.int64)
        return np.flatnonzero((self.parts == part) & np.isfinite(self.truth[name][:, 0]))

    def save(self, folder: Path) -> None:
        """Write the table and the boxes."""
        with atomic_path(folder / "samples.csv") as temporary, open(temporary, "w", newline="") as f:
            writer = csv.writer(f, lineterminator="\n")
            writer.writerow(_HEADER)
            for row, id in enumerate(self.ids):
                height, width = self.shapes[row].tolist()
                age, sex = float(self.months[row]), bool(self.male[row])
                writer.writerow((id, self.parts[row], age, sex, height, width, self.paths[row]))
        with atomic_path(folder / "truth.npz") as temporary:
            np.savez(temporary, **self.truth)

    @classmethod
    def load(cls, folder: Path) -> Samples:
        """Read what `save` wrote."""
        with open(folder / "samples.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        with np.load(folder / "truth.npz") as boxes:
            truth = {name: boxes[name] for name in boxes.files}
        return cls(
            ids=tuple(row["id"] for row in rows),
            parts=np.array([row["part"] for row in rows]),
            months=np.array([float(row["months"]) for row in rows], dtype=np.float32),
            male=np.array([row["male"] == "True" for row in rows]),
            shapes=np.array([(int(row["height"]), int(row["width"])) for row in rows]),
            paths=tuple(Path(row["path"]) for row in rows),
            truth=truth,
        )


def truth_arrays(
    ids: tuple[str, ...], boxes: dict[str, dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Annotated boxes as one array a region, NaN where an image has none."""
    none = np.full(4, np.nan)
    names = sorted({name for names in TRUTH.values() for name in names} & boxes.keys())
    return {name: np.stack([boxes[name].get(id, none) for id in ids]) for name in names}


