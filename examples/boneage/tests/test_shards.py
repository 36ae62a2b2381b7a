"""One table of predictions, whoever reads the images, and however often they are stopped."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from boneage import shards
from boneage.errors import UserError
from boneage.predictor import Patient
from boneage.processes import Share, launched_share
from boneage.readings import columns
from boneage.shards import write_predictions


class Reader:
    """Stands in for the networks: says the name of each image, and stops at one of them."""

    def __init__(self, stop_at: str = "", fingerprint: str = "a model"):
        self.fingerprint = fingerprint
        self.stop_at = stop_at
        self.read: list[str] = []
        self.columns = columns(["hand"])

    def rows(self, patients: Sequence[Patient]) -> Iterator[dict[str, str]]:
        for patient in patients:
            name = patient.path.name
            if name == self.stop_at:
                raise KeyboardInterrupt
            self.read.append(name)
            bad = {"error": 'no "image", none'} if name.endswith("7") else {}
            yield dict.fromkeys(self.columns, "") | {"path": name, **bad}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 4)


def patients(count: int) -> list[Patient]:
    return [Patient(Path(f"image {number}")) for number in range(count)]


def names(path: Path) -> list[str]:
    with open(path, newline="", encoding="utf-8") as file:
        return [row["path"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("images", [0, 1, 4, 30])
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_every_row_once_and_in_order_however_many_processes(
    tmp_path: Path, images: int, count: int
) -> None:
    out, alone = tmp_path / "out.csv", tmp_path / "alone.csv"
    bad = sum(number % 10 == 7 for number in range(images))
    assert write_predictions(Reader(), patients(images), alone) == bad
    readers = [Reader() for _ in range(count)]
    done = []
    for rank in reversed(range(count)):
        assert not out.exists()
        told: list[int] = []
        done.append(
            write_predictions(
                readers[rank],
                patients(images),
                out,
                told.append,
                Share(rank, count),
            )
        )
        assert sum(told) == len(readers[rank].read)
        if done[-1] is not None:
            break
    assert done[-1] == bad
    assert out.read_bytes() == alone.read_bytes()
    assert names(out) == [one.path.name for one in patients(images)]
    assert sum(len(reader.read) for reader in readers) == images
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.csv", "out.csv"]


def test_processes_at_the_same_time(tmp_path: Path) -> None:
    for attempt in range(20):
        out = tmp_path / f"{attempt}.csv"

        def work(rank: int, out: Path = out) -> int | None:
            reader: Any = Reader()
            return write_predictions(reader, patients(30), out, share=Share(rank, 4))

        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(work, range(4)))
        assert names(out) == [one.path.name for one in patients(30)]
        assert [failed for failed in done if failed is not None] == [3]


def test_what_was_stopped_goes_on_with_the_next_shard(tmp_path: Path) -> None:
    out, stopped, again = tmp_path / "out.csv", Reader("image 13"), Reader()
    with pytest.raises(KeyboardInterrupt):
        write_predictions(stopped, patients(30), out)
    assert not out.exists()
    told: list[int] = []
    assert write_predictions(again, patients(30), out, told.append) == 3
    assert again.read == [one.path.name for one in patients(30)[12:]]
    assert sum(told) == 30
    assert names(out) == [one.path.name for one in patients(30)]


@pytest.mark.parametrize(
    ("reader", "images"), [(Reader(fingerprint="another"), 30), (Reader(), 31)]
)
def test_shards_of_other_models_or_images_are_not_taken(
    tmp_path: Path, reader: Reader, images: int
) -> None:
    out = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(Reader("image 13"), patients(30), out)
    write_predictions(reader, patients(images), out)
    assert len(reader.read) == images


def test_a_full_disk_while_they_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.csv"

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", full)
        with pytest.raises(UserError, match=r"out\.csv: cannot be written .*free some space"):
            write_predictions(Reader(), patients(30), out)
    assert not out.exists()
    again = Reader()
    write_predictions(again, patients(30), out)
    assert again.read == []
    assert len(names(out)) == 30


def test_a_process_killed_while_it_joined_them(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(Reader("image 29"), patients(30), out)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    folder.rename(f"{folder}.joining")
    again = Reader()
    write_predictions(again, patients(30), out)
    assert len(again.read) == 2
    assert len(names(out)) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_who_started_a_process_says_its_share() -> None:
    assert launched_share({}) == Share(0, 1)
    assert launched_share({"RANK": "3", "WORLD_SIZE": "8"}) == Share(3, 8)
    step = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    assert launched_share(step) == Share(1, 2)
    # A batch script's own process is one alone, however many tasks it may start.
    assert launched_share({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}) == Share(0, 1)


def test_the_command_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "boneage", "predict", "--help"], capture_output=True, text=True
    )
    assert "Usage: python -m boneage predict" in done.stdout
