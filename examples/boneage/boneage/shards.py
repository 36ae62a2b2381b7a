"""Predictions of many images, a shard at a time, by one process or by several together."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from boneage.predictor import Patient, Predictor
from boneage.processes import Share
from boneage.run_folder import TEXT, atomic_path, writing

# Whole batches, so that how many processes there are changes no rounding.
SHARD = 1024


def write_predictions(
    predictor: Predictor,
    patients: Sequence[Patient],
    out: Path,
    progress: Callable[[int], None] = lambda done: None,
    share: Share = Share(),  # noqa: B008
) -> int | None:
    """Write one row an image to a CSV file, in the order of the images, whole or not at all.

    Shards lie beside the file until all are there; what was interrupted goes on with the next
    shard. Whichever process ends last makes the file of them.

    Args:
        predictor: The trained model.
        patients: The images, the same ones in the same order for every process.
        out: The CSV file.
        progress: Is told how many images more are done.
        share: Which shards are this process's.

    Returns:
        How many images could not be read; None if other processes have shards left.

    Raises:
        UserError: If the file cannot be written.
    """
    starts = range(0, max(len(patients), 1), SHARD)
    folder = out.with_name(f".{out.name}.{_digest(predictor, patients)}")
    if _joining(folder).exists() and not folder.exists():
        with writing(out):
            _joining(folder).rename(folder)  # it was killed while it joined them
    for start in starts[share.rank :: share.count]:
        shard, path = patients[start : start + SHARD], folder / f"{start}.csv"
        if path.exists():
            progress(len(shard))
        else:
            _write_shard(predictor, shard, path, progress)
    paths = [folder / f"{start}.csv" for start in starts]
    if not all(path.exists() for path in paths):
        return None
    return _join(folder, paths, predictor.columns, out)


def _digest(predictor: Predictor, patients: Sequence[Patient]) -> str:
    """Of what shards belong together by."""
    digest = hashlib.sha256(predictor.fingerprint.encode())
    for patient in patients:
        digest.update(repr(patient).encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _write_shard(
    predictor: Predictor, patients: Sequence[Patient], path: Path, progress: Callable[[int], None]
) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", **TEXT) as file:
        writer = csv.DictWriter(file, predictor.columns, lineterminator="\n")
        for row in predictor.rows(patients):
            writer.writerow(row)
            progress(1)


def _join(folder: Path, paths: Sequence[Path], columns: Sequence[str], out: Path) -> int | None:
    """Make one table of all shards, and remove them; only one process comes to it."""
    failed, taken = 0, _joining(folder)
    with writing(out):
        try:
            folder.rename(taken)
        except FileNotFoundError:
            return None
    try:
        with atomic_path(out) as temporary, open(temporary, "w", newline="", **TEXT) as file:
            csv.writer(file, lineterminator="\n").writerow(columns)
            for path in paths:
                with open(taken / path.name, newline="", **TEXT) as shard:
                    for row in csv.reader(shard):
                        failed += bool(row[-1])
                    shard.seek(0)
                    shutil.copyfileobj(shard, file)
    except BaseException:
        taken.rename(folder)  # to be tried again
        raise
    shutil.rmtree(taken, ignore_errors=True)
    return failed


def _joining(folder: Path) -> Path:
    """What shards' folder is called while they are joined."""
    return folder.with_name(f"{folder.name}.joining")
