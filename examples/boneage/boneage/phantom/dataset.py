"""A folder of phantoms in the layout of the RSNA training set."""

from __future__ import annotations

import csv
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from .radiograph import DEFAULT, PhantomConfig, generate
from .shapes import Box
from .version import PHANTOM_VERSION, fingerprint

IMAGES = "boneage-training-dataset"
LABELS = "boneage-training-dataset.csv"
BOXES = "boxes.csv"
ABOUT = "phantom.json"
READER = "phantom"
FIRST_ID = 1001

_Label = tuple[int, int, bool, dict[str, Box]]


def write_dataset(
    folder: str | os.PathLike[str],
    count: int,
    *,
    seed: int = 0,
    config: PhantomConfig = DEFAULT,
    boxed: float = 0.25,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Writes phantoms as RSNA's training data are laid out, or writes nothing.

    ::

        boneage-training-dataset/1001.png ...
        boneage-training-dataset.csv     id,boneage,male
        boxes.csv                        id,reader,region,x1,y1,x2,y2
        phantom.json                     version, fingerprint, count, seed, boxed, config

    All of it goes to a temporary folder beside the target, which takes the target's name once
    it is whole: a folder of that name is never half written. What is written depends on the
    arguments only, not on the number of workers.

    Args:
        folder: where to; it must not exist, or be empty.
        count: number of patients, with ids 1001, 1002, ...
        seed: another seed gives other patients.
        config: size, depth and variant.
        boxed: share of the ids, chosen evenly and at random, whose boxes are written.
        workers: processes; as many as there are CPUs if not given. One, or a handful of images,
            stays in this process. Workers are spawned, so a script that calls this needs the
            usual ``if __name__ == "__main__":``.
        progress: called with the number of images finished so far.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder exists and is not empty.
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.
    """
    _check_integer("count", count, 1)
    _check_integer("seed", seed, 0)
    if workers is not None:
        _check_integer("workers", workers, 1)
    if isinstance(boxed, bool) or not isinstance(boxed, Real) or not 0 <= boxed <= 1:
        raise ValueError(f"boxed: expected a share in 0..1, got {boxed!r}")
    target = Path(folder).absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"{target}: exists already; remove it or choose another folder")

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        draft = Path(scratch, target.name)
        (draft / IMAGES).mkdir(parents=True)
        labels = []
        for label in _write_images(draft / IMAGES, count, seed, config, workers):
            labels.append(label)
            if progress is not None:
                progress(len(labels))
        _write_tables(draft, labels, _boxed_ids(count, seed, float(boxed)))
        about = {
            "version": PHANTOM_VERSION,
            "fingerprint": fingerprint(),
            "count": int(count),
            "seed": int(seed),
            "boxed": float(boxed),
            "config": asdict(config),
        }
        (draft / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        if target.exists():
            target.rmdir()
        draft.rename(target)
    return target


def patient_seed(seed: int, index: int) -> int:
    """Seed of the patient at a place (from 0 on) of the data set with the given seed."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def _check_integer(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")


def _write_images(
    folder: Path, count: int, seed: int, config: PhantomConfig, workers: int | None
) -> Iterator[_Label]:
    write = partial(_write_image, folder, seed, config)
    processes = min(workers or _cpu_count(), math.ceil(count / 32))
    if processes == 1:
        yield from map(write, range(count))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(write, range(count), chunksize=8)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write_image(folder: Path, seed: int, config: PhantomConfig, index: int) -> _Label:
    from PIL import Image

    phantom = generate(patient_seed(seed, index), config=config)
    name = FIRST_ID + index
    Image.fromarray(phantom.image).save(folder / f"{name}.png", compress_level=3)
    return name, round(phantom.age), phantom.male, dict(phantom.boxes)


def _boxed_ids(count: int, seed: int, share: float) -> set[int]:
    chosen = np.random.default_rng([seed, count]).permutation(count)[: round(share * count)]
    return {FIRST_ID + int(index) for index in chosen}


def _write_tables(folder: Path, labels: list[_Label], boxed: set[int]) -> None:
    with (folder / LABELS).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "boneage", "male"])
        table.writerows([name, age, male] for name, age, male, _ in labels)
    with (folder / BOXES).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "reader", "region", "x1", "y1", "x2", "y2"])
        for name, _, _, boxes in labels:
            if name in boxed:
                for region, box in boxes.items():
                    table.writerow([name, READER, region, *(f"{edge:.2f}" for edge in box)])
