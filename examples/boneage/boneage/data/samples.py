"""The prepared data set: the table every later stage reads."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from boneage.config import TRUTH
from boneage.errors import UserError
from boneage.run_folder import TEXT, atomic_path, write_array, write_arrays

_TABLE, _TRUTH, _COVARIATES = "samples.csv", "truth.npz", "covariates.npy"
_HEADER = ("id", "part", "patient", "months", "male", "height", "width", "path")


@dataclass(frozen=True)
class Samples:
    """All images of a run, sorted by id; every array has one row an image.

    Attributes:
        ids: The images' ids.
        parts: Which part of the split each belongs to.
        patients: Whom each shows, int64: a number instead of a name.
        months: Ages, float32.
        male: Sexes, bool.
        shapes: Heights and widths in pixels, int64 (N, 2).
        paths: The image files, from the data set's folder on.
        truth: Annotated boxes by name ("Hand", "Wrist", ...), float64 (N, 4) in pixels of the
            image; NaN where there is none.
        covariates: What else is known, float32 (N, C); NaN where it is not.
    """

    ids: tuple[str, ...]
    parts: np.ndarray
    patients: np.ndarray
    months: np.ndarray
    male: np.ndarray
    shapes: np.ndarray
    paths: tuple[Path, ...]
    truth: dict[str, np.ndarray]
    covariates: np.ndarray

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
        with (
            atomic_path(folder / _TABLE) as temporary,
            open(temporary, "w", newline="", **TEXT) as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_HEADER)
            for row, id in enumerate(self.ids):
                height, width = self.shapes[row].tolist()
                part, patient = self.parts[row], int(self.patients[row])
                age, sex = float(self.months[row]), bool(self.male[row])
                writer.writerow((id, part, patient, age, sex, height, width, self.paths[row]))
        write_arrays(folder / _TRUTH, self.truth)
        write_array(folder / _COVARIATES, self.covariates)

    @classmethod
    def load(cls, folder: Path) -> Samples:
        """Read what `save` wrote.

        Raises:
            UserError: If it is not there, or not whole.
        """
        try:
            with open(folder / _TABLE, newline="", **TEXT) as file:
                reader = csv.DictReader(file)
                rows = list(reader)
            with open(folder / _TRUTH, "rb") as archive, np.load(archive) as arrays:
                truth = {name: arrays[name] for name in arrays.files}
            with open(folder / _COVARIATES, "rb") as array:
                covariates = np.load(array)
            lengths = {len(rows), len(covariates), *(len(array) for array in truth.values())}
            if reader.fieldnames != list(_HEADER) or len(lengths) > 1:
                raise ValueError(f"{_TABLE}, {_TRUTH} and {_COVARIATES} do not fit together")
            return cls(
                ids=tuple(row["id"] for row in rows),
                parts=np.array([row["part"] for row in rows], dtype=str),
                patients=np.array([int(row["patient"]) for row in rows], dtype=np.int64),
                months=np.array([float(row["months"]) for row in rows], dtype=np.float32),
                male=np.array([row["male"] == "True" for row in rows], dtype=bool),
                shapes=np.array(
                    [(int(row["height"]), int(row["width"])) for row in rows], dtype=np.int64
                ).reshape(-1, 2),
                paths=tuple(Path(row["path"]) for row in rows),
                truth=truth,
                covariates=covariates,
            )
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: not there; prepare the data set first") from None
        except (OSError, EOFError, ValueError, TypeError, KeyError, BadZipFile, csv.Error) as error:
            raise UserError(
                f"{folder}: the prepared data set cannot be read ({error}); "
                "delete that folder and run again"
            ) from None


def truth_arrays(
    ids: Iterable[str], boxes: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Annotated boxes as one array a region, NaN where an image has none.

    Raises:
        UserError: If there are boxes, but of none of the ids, or of no region that is known.
    """
    ids = tuple(ids)
    boxed = set().union(*boxes.values())
    if boxed and boxed.isdisjoint(ids):
        raise UserError(
            f"boxes.csv: none of its ids ({min(boxed)}, ...) is in the table of ages "
            f"({min(ids)}, ...); write them alike, or remove boxes.csv"
        )
    known = {name for names in TRUTH.values() for name in names}
    names = sorted(known & boxes.keys())
    if boxed and not names:
        raise UserError(
            f"boxes.csv: none of its regions ({', '.join(sorted(boxes))}) is one that is scored "
            f"({', '.join(sorted(known))}, or MCP joints for the Metacarpal); name them so, or "
            "remove boxes.csv"
        )
    none = np.full(4, np.nan)
    return {name: np.stack([boxes[name].get(id, none) for id in ids]) for name in names}
