"""How the processes that train together come to be: by torchrun or srun, or started here."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator

import torch

from boneage.config import Hardware
from boneage.errors import UserError
from boneage.networks.devices import check_devices, pick_device
from boneage.processes import Share, joined, launched_share, lead, local_rank


def in_processes(hardware: Hardware, work: Callable[[], None]) -> None:
    """Do `work` with as many processes as the hardware asks for.

    Those of torchrun and srun are taken. Without them, and for one machine, this process starts
    the command that it is once a device, as torchrun would, and waits for their end.

    Raises:
        UserError: If the machine lacks the devices, other processes were started than asked for,
            or one of them has ended before its time.
    """
    launched, count = launched_share(), hardware.devices * hardware.num_nodes
    if launched.count == count == 1:
        work()
        return
    with _one_tells():
        check_devices(hardware)
        if launched.count == count:
            _join(hardware, launched, work)
        elif launched.count > 1:
            raise UserError(
                f"hardware: {launched.count} processes were started, but "
                f"devices={hardware.devices} on num_nodes={hardware.num_nodes} are {count}; give "
                "--devices and --num-nodes what torchrun or srun was given"
            )
        elif hardware.num_nodes > 1:
            raise UserError(
                f"hardware.num_nodes: {hardware.num_nodes} machines are asked for, but this "
                "process is alone; start it by torchrun or srun on each of them"
            )
        else:
            _start(hardware.devices)


@contextlib.contextmanager
def _one_tells() -> Iterator[None]:
    """Of several processes on a machine that have the same problem, the first tells it."""
    try:
        yield
    except UserError:
        if local_rank() > 0:
            sys.exit(1)
        raise


def _join(hardware: Hardware, share: Share, work: Callable[[], None]) -> None:
    if "SLURM_STEP_NODELIST" in os.environ and "RANK" not in os.environ:
        _name_as_torchrun(share)
    if torch.distributed.is_torchelastic_launched():
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if share.rank > 0:
        warnings.simplefilter("ignore")
    try:
        with joined(pick_device(hardware)):
            lead(work)
    except RuntimeError as error:
        if not _lost_another(error):
            raise
        raise UserError(
            f"process {share.rank + 1} of {share.count} has lost another one, whose message tells "
            "why; start them again to go on"
        ) from error


def _name_as_torchrun(share: Share) -> None:
    """Fill the environment of a process of srun with the names that torchrun uses."""
    from lightning.fabric.plugins.environments import SLURMEnvironment

    slurm = os.environ
    host = SLURMEnvironment.resolve_root_node_address(slurm["SLURM_STEP_NODELIST"])
    # Steps of one job, and jobs on one machine, do not meet at the same port.
    port = 15000 + (int(slurm["SLURM_JOB_ID"]) + int(slurm["SLURM_STEP_ID"])) % 10000
    os.environ |= {
        "RANK": str(share.rank),
        "WORLD_SIZE": str(share.count),
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "GROUP_RANK": slurm["SLURM_NODEID"],
        "MASTER_ADDR": slurm.get("MASTER_ADDR", host),
        "MASTER_PORT": slurm.get("MASTER_PORT", str(port)),
    }


def _end_with(launcher: int) -> None:
    """End once torchrun is gone: killed, it has left its processes to train on, unwatched."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)  # others are answered by handlers


def _lost_another(error: RuntimeError) -> bool:
    """Whether an error is that of a process whose connection to another one has broken."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _start(count: int) -> None:
    """Start this command `count` times by torchrun's launcher, and end with them."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What has gone wrong is told by the processes themselves, or below.
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // count)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "boneage", *sys.argv[1:])
    except SignalException:
        sys.exit(1)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        # After one that has told its problem, the launcher itself terminates the others.
        told = {-signal.SIGTERM} if max(codes.values()) > 0 else set()
        for rank, code in codes.items():
            if code < 0 and code not in told:
                raise UserError(
                    f"process {rank + 1} of {count} was ended by {signal.Signals(-code).name}; "
                    "run again to go on"
                ) from None
        sys.exit(1)
