"""Prepare: check the data set, split it, and make the small versions of all images."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from boneage import phantom
from boneage.config import Config, PhantomData
from boneage.data.boxes import read_boxes
from boneage.data.cache import View, whole_pool, write_views
from boneage.data.files import originals
from boneage.data.samples import Samples, truth_arrays
from boneage.data.splits import split_ids, write_split
from boneage.data.tables import Radiograph, check_table, find_table
from boneage.errors import Problems, UserError
from boneage.phantom.dataset import ABOUT, BOXES, IMAGES, LABELS
from boneage.run_folder import Stage, read_json, writing

# Where two readers drew boxes, the expert's count.
_READERS = ("phantom", "train", "val", "test", "eval_expert")


def prepare(config: Config, stage: Stage, data: Path, console: Console) -> None:
    """Write `samples.csv`, `split.csv`, `truth.npz` and one `whole-<size>.npy` for each size.

    Raises:
        UserError: With everything that is wrong with the data set: rows, boxes and images.
    """
    ages = {"first": config.bins.first, "last": config.bins.last}
    radiographs, problems = check_table(data, table=config.table, **ages)
    problems = [f"{find_table(data, config.table).name}, {problem}" for problem in problems]
    ids = tuple(radiograph.id for radiograph in radiographs)
    boxes: dict[str, dict[str, np.ndarray]] = {}
    truth: dict[str, np.ndarray] = {}
    with _gathering(problems):
        if (data / "boxes.csv").exists():
            boxes = read_boxes(data / "boxes.csv", readers=_READERS)
        truth = truth_arrays(ids, boxes)
    with _gathering(problems):
        shapes = _write_whole(config, stage, [one.path for one in radiographs], console)
        _check_boxes(truth, ids, shapes)
    if problems:
        raise Problems(data, problems)
    # An id with any box at all is kept out of training, also where no score uses that box.
    boxed = {name: set(boxes[name]) for name in truth}
    boxed["annotated"] = {id for by_id in boxes.values() for id in by_id}
    copied = originals({one.id: one.path for one in radiographs})
    given = {one.id: one.part for one in radiographs} if config.table.part else None
    named = config.table.patient is not None
    patients = {one.id: one.patient for one in radiographs} if named else copied
    # A split of one's own may have copies in several parts.
    together = patients if named or given is None else None
    parts = split_ids(ids, boxed, config.split, patients=together, given=given)
    _say_copies(copied, parts, console)
    write_split(stage / "split.csv", parts)
    _samples(data, radiographs, parts, patients, shapes, truth).save(stage.folder)
    counts = ", ".join(f"{part} {count}" for part, count in Counter(parts.values()).items())
    console.print(f"{len(ids)} radiographs: {counts}")


def _say_copies(copied: Mapping[str, str], parts: Mapping[str, str], console: Console) -> None:
    """Say which images are copies of others, and how many a split of one's own has set apart."""
    copies = {id: first for id, first in copied.items() if id != first}
    if not copies:
        return
    listed = [f"{id} of {first}" for id, first in copies.items()]
    shown = ", ".join([*listed[:5], *(["..."] if len(listed) > 5 else [])])
    apart = sum(parts[id] != parts[first] for id, first in copies.items())
    where = f"; {apart} of them in another part" if apart else ""
    console.print(f"copies of other images: {len(copies)} ({escape(shown)}){where}")


@contextlib.contextmanager
def _gathering(problems: list[str]) -> Iterator[None]:
    """Adds what is wrong to the list, so that the rest can be looked at before it is told."""
    try:
        yield
    except Problems as error:
        problems += error.problems
    except UserError as error:
        problems.append(str(error))


def _write_whole(config: Config, stage: Stage, paths: list[Path], console: Console) -> np.ndarray:
    """Write the whole images at every size that is needed; heights and widths (N, 2)."""
    views = [View(whole_path(stage, size), size) for size in _sizes(config)]
    with Progress(console=console) as progress:
        bar = progress.add_task("reading images", total=len(paths))
        return write_views(paths, views, config.contrast, lambda done: progress.advance(bar, done))


def draw_phantom(config: PhantomData, folder: Path, console: Console) -> None:
    """Draw the phantom data set, unless the same one lies there already.

    Raises:
        UserError: If the folder holds something else, also beside a phantom data set.
    """
    drawing = phantom.PhantomConfig(config.size, config.bits, config.variant)
    about = folder / ABOUT
    if about.exists():
        known, wanted = read_json(about), config.model_dump(mode="json")
        drawn = known | known.get("config", {})
        same = all(drawn.get(name) == value for name, value in wanted.items())
        if same and known.get("fingerprint") == phantom.fingerprint():
            return
        with writing(folder):
            shutil.rmtree(folder / IMAGES, ignore_errors=True)
            for name in (LABELS, BOXES, ABOUT):
                (folder / name).unlink(missing_ok=True)
    with writing(folder):
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UserError(f"{folder}: holds something else already; name a new folder")
    with Progress(console=console) as progress, writing(folder), whole_pool("drew"):
        bar = progress.add_task("drawing phantoms", total=config.count)
        phantom.write_dataset(
            folder,
            config.count,
            seed=config.seed,
            config=drawing,
            boxed=config.boxed,
            progress=lambda done: progress.update(bar, completed=done),
        )


def _check_boxes(truth: dict[str, np.ndarray], ids: tuple[str, ...], shapes: np.ndarray) -> None:
    """Boxes drawn in another frame than the images' own would choose meaningless thresholds."""
    for name, boxes in truth.items():
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        outside = (centers < 0).any(axis=1) | (centers > shapes[:, ::-1]).any(axis=1)
        for row in np.flatnonzero(outside)[:1]:
            height, width = shapes[row]
            raise UserError(
                f"boxes.csv: the {name} box of {ids[row]} lies outside of its image, which has "
                f"{width} x {height} pixels; give boxes in pixels of the image files"
            )


def whole_path(stage: Stage, size: int) -> Path:
    """Where the whole images lie at one size."""
    return stage / f"whole-{size}.npy"


def _sizes(config: Config) -> list[int]:
    """The sizes at which whole images are needed: by the attention networks and by model O."""
    plan = config.localization
    sizes = {localizer.size for localizer in plan.localizers()}
    return sorted(sizes | {config.training.size})


def _samples(
    data: Path,
    radiographs: list[Radiograph],
    parts: dict[str, str],
    patients: Mapping[str, str],
    shapes: np.ndarray,
    truth: dict[str, np.ndarray],
) -> Samples:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(patients.values()))}
    return Samples(
        ids=tuple(radiograph.id for radiograph in radiographs),
        parts=np.array([parts[radiograph.id] for radiograph in radiographs]),
        patients=np.array([numbers[patients[radiograph.id]] for radiograph in radiographs]),
        months=np.array([radiograph.months for radiograph in radiographs], dtype=np.float32),
        male=np.array([radiograph.male for radiograph in radiographs]),
        shapes=shapes,
        paths=tuple(radiograph.path.relative_to(data) for radiograph in radiographs),
        truth=truth,
        covariates=np.array([one.covariates for one in radiographs], dtype=np.float32),
    )
