"""Processes that train together: each image once, the figures of one, and none left when one ends.

Those here share a CPU, and talk to each other as those of several machines do.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed_fit
import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from boneage import launch
from boneage.cli import app
from boneage.config import Augmentation, Hardware, load_config
from boneage.data.batches import augment, loader
from boneage.errors import UserError
from boneage.launch import in_processes
from boneage.networks import devices
from boneage.networks.training import check_hardware
from boneage.pipeline import run
from boneage.processes import Share, own_share

TESTS = Path(__file__).parent
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
VALIDATED = (5, 1)


@pytest.fixture(autouse=True)
def started_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LAUNCHED, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


# ------------------------------------------------------------------------------ shares of batches


def _months(count: int, batch_size: int, share: Share, *, shuffle: bool) -> list[list[float]]:
    torch.manual_seed(3)
    images = distributed_fit.dataset(count, 0)
    return [b.months.tolist() for b in loader(images, batch_size, shuffle=shuffle, share=share)]


@pytest.mark.parametrize(("count", "processes"), [(16, 2), (17, 2), (1, 2), (9, 4), (30, 4)])
def test_validation_images_are_in_one_share_each(count: int, processes: int) -> None:
    alone = _months(count, 8, Share(), shuffle=False)
    shares = [_months(count, 8, Share(i, processes), shuffle=False) for i in range(processes)]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert [parts[i % processes][i // processes] for i in range(len(whole))] == whole
        assert sum(map(len, parts)) == len(whole)


@pytest.mark.parametrize(
    ("count", "processes", "steps", "left_out"), [(16, 2, 2, 0), (21, 2, 3, 1), (19, 2, 2, 3)]
)
def test_training_shares_are_equal_and_of_the_same_batch(
    count: int, processes: int, steps: int, left_out: int
) -> None:
    alone = _months(count, 8, Share(), shuffle=True)
    shares = [_months(count, 8, Share(i, processes), shuffle=True) for i in range(processes)]
    assert [len(share) for share in shares] == [steps] * processes
    for whole, *parts in zip(alone, *shares, strict=False):
        assert len({len(part) for part in parts}) == 1
        assert set().union(*parts) <= set(whole)
    seen = [months for share in shares for part in share for months in part]
    assert len(seen) == len(set(seen)) == count - left_out


def test_an_image_is_changed_alike_in_any_share() -> None:
    images = torch.rand(6, 2, 16, 16)
    config = distributed_fit.LOCALIZER.augmentation
    assert config != Augmentation()
    torch.manual_seed(0)
    whole = augment(images, config)
    for rank in range(3):
        torch.manual_seed(0)
        part = augment(images[rank::3], config, Share(rank, 3))
        torch.testing.assert_close(part, whole[rank::3], rtol=0, atol=0)


# ------------------------------------------------------------------------------------ one network


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that two processes have trained, for each number of validation images."""
    folder = tmp_path_factory.mktemp("trained")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    program = [str(TESTS / "distributed_fit.py"), str(folder), *map(str, VALIDATED)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *program], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "trained.pt")
    return found


def test_two_processes_train_the_network_of_one(trained: Path, tmp_path: Path) -> None:
    distributed_fit.train(tmp_path, VALIDATED[0])
    alone, both = _read(tmp_path)["weights"], _read(trained / str(VALIDATED[0]))["weights"]
    torch.manual_seed(0)
    before = distributed_fit.network().state_dict()
    moved = max((alone[name] - before[name]).abs().max() for name in before)
    apart = max((alone[name] - both[name]).abs().max() for name in alone)
    # Roundings of the gradient, which Adam divides by its size.
    assert apart < 1e-4 < 1e-2 < moved


@pytest.mark.parametrize("count", VALIDATED)
def test_the_error_counts_each_validation_image_once(trained: Path, count: int) -> None:
    found = _read(trained / str(count))
    network = distributed_fit.network()
    network.load_state_dict(found["weights"])
    images = distributed_fit.dataset(count, 2)
    (batch,) = loader(images, count, shuffle=False)
    told = network.eval().attend(batch.images.float() / 255, batch.sex).months
    expected = np.abs(told.double().numpy() - batch.months.double().numpy()).mean()
    assert found["error"] == pytest.approx(expected, rel=1e-6)
    with open(trained / str(count) / "log" / "version_0" / "metrics.csv", newline="") as file:
        logged = [float(row["val_mae"]) for row in csv.DictReader(file) if row["val_mae"]]
    assert logged[-1] == pytest.approx(expected, rel=1e-6)
    assert [path.name for path in (trained / str(count) / "log").iterdir()] == ["version_0"]


# -------------------------------------------------------------------------------------- whole runs

# The processes say who they are; those after the first note what they say and which files they
# write.
_WATCHED = """
import os, sys
rank, folder = os.environ.get("RANK", os.environ.get("SLURM_PROCID")), os.environ["WATCHED"]
own = os.path.join(folder, f"pid-{rank}")
# Not what reads images for the process of that rank.
if rank is not None and not os.path.exists(own):
    with open(own, "w") as file:
        file.write(str(os.getpid()))
if rank not in (None, "0"):
    said = os.open(os.path.join(folder, "said"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    written = os.open(os.path.join(folder, "written"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)

    def watch(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if writes or event in ("os.rename", "os.remove", "os.mkdir"):
            if os.path.join(folder, "run") in os.path.abspath(os.fsdecode(arguments[0])):
                os.write(written, f"{event} {arguments}\\n".encode())

    sys.addaudithook(watch)
"""
_CHANGES = (
    "localization.hand.schedule={epochs: [20], batch_size: 8, accumulate: 2}",
    "training.models=[{name: O, regions: [whole]}]",
    "hardware.accelerator=cpu",
)
_SRUN = {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_JOB_ID": str(os.getpid()),  # tells the port, which other tests are not to take
    "SLURM_STEP_ID": "0",
    "SLURM_NODEID": "0",
}


def _start(folder: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    (folder / "sitecustomize.py").write_text(_WATCHED)
    command = [sys.executable, "-m", "boneage", "run", "--preset", "smoke"]
    command += ["--out", str(folder / "run"), *(f"--set={change}" for change in _CHANGES)]
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "WATCHED": str(folder)} | variables,
    )


def _until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def _pid(folder: Path, rank: int) -> int:
    return int((folder / f"pid-{rank}").read_text())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _kill(folder: Path, rank: int | None) -> tuple[int, str]:
    """Kill a process of two while they train, or their launcher; its exit status, and what it said.

    None of them is left then.
    """
    last = folder / "run" / "attention-hand" / "checkpoints" / "last.ckpt"
    begun = last.stat().st_mtime_ns if last.exists() else 0
    for old in folder.glob("pid-*"):
        old.unlink()
    launcher = _start(folder, "--devices", "2")
    try:
        _until(lambda: last.exists() and last.stat().st_mtime_ns > begun)
        os.kill(launcher.pid if rank is None else _pid(folder, rank), signal.SIGKILL)
        _, errors = launcher.communicate(timeout=300)
    finally:
        launcher.terminate()
    _until(lambda: not any(_runs(_pid(folder, rank)) for rank in (0, 1)), 60)
    return launcher.returncode, errors


def _assert_told(code: int, errors: str, rank: int) -> None:
    assert code == 1
    assert f"process {rank + 1} of 2 was ended by SIGKILL; run again to go on" in errors
    assert "Traceback" not in errors


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first process was killed while it trained, and then its launcher."""
    folder = tmp_path_factory.mktemp("killed")
    _assert_told(*_kill(folder, 0), 0)
    assert _kill(folder, None)[0] == -signal.SIGKILL
    return folder


@pytest.mark.long
def test_the_first_process_ends_with_another(tmp_path: Path) -> None:
    _assert_told(*_kill(tmp_path, 1), 1)
    assert (tmp_path / "said").read_text() == (tmp_path / "written").read_text() == ""


@pytest.fixture(scope="module")
def both(killed: Path) -> Path:
    """The same run, ended by two processes that were started as srun starts them."""
    ranks = [
        _start(killed, "--devices", "2", SLURM_PROCID=rank, SLURM_LOCALID=rank, **_SRUN)
        for rank in "01"
    ]
    try:
        for process in ranks:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in ranks:
            process.kill()
    return killed


def test_the_run_goes_on_after_one_was_killed(both: Path) -> None:
    logs = both / "run" / "attention-hand" / "log"
    first = []
    for version in ("version_0", "version_1", "version_2"):
        path = logs / version / "metrics.csv"
        rows = csv.DictReader(path.read_text().splitlines()) if path.exists() else ()
        first.append(min((int(row["epoch"]) for row in rows if row["val_mae"]), default=None))
    assert first[-1] is not None
    assert first[-1] > 0


def test_the_evaluation_is_that_of_one_process(both: Path, tmp_path: Path) -> None:
    alone, found = tmp_path / "run", both / "run"
    shutil.copytree(found, alone)
    for path in (*alone.glob("ages-*"), alone / "predictions.csv", alone / "metrics.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    config = load_config(str(found / "config.yaml"), ["hardware.devices=1"])
    run(config, alone, Console(quiet=True), until="evaluate")
    written = (found / "predictions.csv").read_bytes()
    assert (alone / "predictions.csv").read_bytes() == written
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (alone, found))
    assert two["configuration"]["hardware"]["devices"] == 2
    for name in ("localization", "ages", "data"):
        assert one[name] == two[name]
    # What was trained was kept: only the ages were told again.
    trained = [name for name in one["seconds"] if not name.startswith("ages")]
    assert all(one["seconds"][name] == two["seconds"][name] for name in trained)


def test_each_test_image_has_one_row(both: Path) -> None:
    with open(both / "run" / "predictions.csv", newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    with open(both / "run" / "prepare" / "split.csv", newline="") as file:
        expected = [row["id"] for row in csv.DictReader(file) if row["part"] == "test"]
    assert ids == sorted(expected)


def test_only_the_first_process_writes_and_speaks(both: Path) -> None:
    assert (both / "said").read_text() == ""
    assert (both / "written").read_text() == ""


# ---------------------------------------------------------------------------------------- refusals


def _never() -> None:
    raise AssertionError("refused before anything is done")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["hardware.devices=3"], r"schedule\.batch_size: 3 processes .* multiple of 3.* got 16"),
        (["hardware.devices=4", "hardware.num_nodes=4"], r"16 processes .* from 32 on, got 16"),
        (["hardware.devices=0"], r"hardware\.devices: .*greater than or equal to 1 \(got 0\)"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(changes: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        load_config("smoke", changes)


def test_fewer_gpus_than_asked_for_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(devices._AVAILABLE, "cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"hardware\.devices: 4 .*this machine shows 2 of cuda"):
        in_processes(Hardware(accelerator="cuda", devices=4), _never)


def test_machines_without_a_launcher_are_refused() -> None:
    with pytest.raises(UserError, match=r"num_nodes: 2 machines .*start it by torchrun or srun"):
        in_processes(Hardware(accelerator="cpu", num_nodes=2), _never)


@pytest.mark.parametrize(("rank", "error"), [("0", UserError), ("1", SystemExit)])
def test_other_processes_than_asked_for_are_told_once(
    rank: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(LAUNCHED, (rank, "2", rank), strict=False):
        monkeypatch.setenv(name, value)
    with pytest.raises(error) as caught:
        in_processes(Hardware(accelerator="cpu", devices=4), _never)
    if error is UserError:
        assert "2 processes were started, but devices=4 on num_nodes=1 are 4" in str(caught.value)


def test_one_process_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # A batch script of SLURM that starts the command without srun.
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "bones")
    done = []
    hardware = Hardware(accelerator="cpu")
    in_processes(hardware, lambda: done.append(own_share()))
    assert done == [Share(0, 1)]
    check_hardware(hardware)


def test_processes_that_never_joined_do_not_train() -> None:
    with pytest.raises(UserError, match="are to train together, and there is 1 process"):
        check_hardware(Hardware(accelerator="cpu", devices=2))


def test_options_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Hardware] = []
    monkeypatch.setattr(launch, "in_processes", lambda hardware, work: asked.append(hardware))
    words = ["--preset", "smoke", "--out", str(tmp_path), "--devices", "2", "--num-nodes", "4"]
    for command in ("run", "localize", "train", "losses"):
        assert CliRunner().invoke(app, [command, *words]).exit_code == 0
    assert {(hardware.devices, hardware.num_nodes) for hardware in asked} == {(2, 4)}


def test_another_number_of_steps_is_not_gone_on_with(tmp_path: Path) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    torch.save({"steps_per_epoch": 99}, last)
    with pytest.raises(UserError, match=r"last\.ckpt: .*99 steps an epoch.* go on with as many"):
        distributed_fit.train(tmp_path, 2)
