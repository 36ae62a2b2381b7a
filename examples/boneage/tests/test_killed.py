"""Runs that are really killed, again and again, and what they come to in the end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import search_path
from rich.console import Console
from safetensors.numpy import load_file

from boneage.config import load_config
from boneage.pipeline import run

_CHANGES = (
    "localization.hand.schedule.epochs=[2]",
    "training.schedule={epochs: [3], batch_size: 16}",
    "training.augmentation={rotation: 10, flip: true}",
    "training.models=[{name: O, regions: [whole]}, {name: R1, regions: [region1]}]",
    "hardware.accelerator=cpu",
)
# Counts the files that are to take their names, and dies before or after one of them did.
_DYING = """
import os, signal
at, done, take = int(os.environ["DIE_AT"]), 0, os.replace

def replace(*paths):
    global done
    done += 1
    if done == at // 2 and at % 2 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    take(*paths)
    if done == at // 2:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = replace
"""


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left alone") / "run"
    run(load_config("smoke", list(_CHANGES)), folder, Console(quiet=True))
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts the run in a process of its own, which dies at the given file if there is one."""
    (tmp_path / "sitecustomize.py").write_text(_DYING)
    command = [sys.executable, "-m", "boneage", "run", "--preset", "smoke"]
    command += ["--out", str(tmp_path / "run"), *(f"--set={change}" for change in _CHANGES)]
    started: list[subprocess.Popen[bytes]] = []

    def begin(die_at: int = 0) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": search_path(tmp_path), "DIE_AT": str(die_at)}
        with open(tmp_path / "log", "wb") as log:
            # A group of its own, which is killed with all that read images for it.
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def _assert_same(folder: Path, expected: Path) -> None:
    networks = sorted(path.relative_to(expected) for path in expected.rglob("*.safetensors"))
    assert networks
    for path in networks:
        one, other = load_file(folder / path), load_file(expected / path)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one), path
    for name in ("predictions.csv", "prepare/split.csv"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()
    assert (folder / "report.html").exists()
    drafts = [path for path in folder.rglob(".draft*") if path.is_file()]
    assert drafts == []


def _killed_at_files(start: Callable[..., subprocess.Popen[bytes]], places: list[int]) -> int:
    """Run again and again, dying each time at the next of the places; how often it died."""
    deaths = 0
    for place in [*places, 0]:
        code = start(place).wait(timeout=600)
        assert code in (0, -signal.SIGKILL)
        deaths += code != 0
    assert code == 0
    return deaths


def test_a_run_that_dies_at_its_files_ends_like_one_left_alone(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, left_alone: Path
) -> None:
    assert _killed_at_files(start, [5, 24, 12]) == 3
    _assert_same(tmp_path / "run", left_alone)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_a_run_that_dies_at_many_files_ends_like_one_left_alone(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, left_alone: Path, seed: int
) -> None:
    places = random.Random(seed)
    assert _killed_at_files(start, [places.randint(2, 16) for _ in range(6)]) >= 3
    _assert_same(tmp_path / "run", left_alone)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_a_run_that_is_killed_at_any_moment_ends_like_one_left_alone(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, left_alone: Path, seed: int
) -> None:
    moments = random.Random(seed)
    for _ in range(5):
        process = start()
        try:
            process.wait(timeout=moments.uniform(2, 14))
        except subprocess.TimeoutExpired:
            # Every other time, what reads images for it is left to find out by itself.
            if moments.random() < 0.5:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start().wait(timeout=600) == 0
    _assert_same(tmp_path / "run", left_alone)
