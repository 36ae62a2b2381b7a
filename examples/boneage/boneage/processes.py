"""Several processes that work on one thing: which of them this is, and how they train together.

The first process does everything. The others wait for it, for as long as it takes, and join in what
is done `together`: they are given the same call with the same arguments.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ParamSpec, TypeVar, cast

import torch
from torch import distributed

T = TypeVar("T")
P = ParamSpec("P")

# Preparing a large data set may take the first process days.
_PATIENCE = timedelta(days=365)


@dataclass(frozen=True)
class Share:
    """Which of how many processes this is; what they share is dealt out to them in turn."""

    rank: int = 0
    count: int = 1


def launched_share(environment: Mapping[str, str] = os.environ) -> Share:
    """The share of a process that torchrun or srun has started; all of it for any other."""
    for rank, count in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if rank in environment and count in environment:
            return Share(int(environment[rank]), int(environment[count]))
    return Share()


def local_rank() -> int:
    """Which of the processes on its machine this is."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))


def own_share() -> Share:
    """The share of a process among those that have joined each other; all of it if none has."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Share()
    return Share(distributed.get_rank(), distributed.get_world_size())


def leads() -> bool:
    """Whether this is the first process, which alone writes."""
    return own_share().rank == 0


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Processes that torchrun has started, or whose environment is as it makes it, as one group.

    A process that fails leaves the group open: its end is then what the others notice.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    _patient_group()
    yield
    _patient_group.cache_clear()
    distributed.destroy_process_group()


def lead(work: Callable[[], None]) -> None:
    """Do `work` in the first process; the others join in what is done `together` in it."""
    if leads():
        work()
        agree(None)
        return
    while (joint := agree(None)) is not None:
        joint()


def together(work: Callable[P, None]) -> Callable[P, None]:
    """Makes a function of a module one that all processes run when the first one calls it."""

    @functools.wraps(work)
    def joint(*args: P.args, **kwargs: P.kwargs) -> None:
        if leads():
            agree(functools.partial(joint, *args, **kwargs))
        work(*args, **kwargs)

    return joint


def agree(value: T) -> T:
    """What the first process says, which the others wait for."""
    if own_share().count == 1:
        return value
    said = [value]
    distributed.broadcast_object_list(said, src=0, group=_patient_group())
    return said[0]


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """A block that the first process has done before the others begin it."""
    if not leads():
        agree(None)
    yield
    if leads():
        agree(None)


@functools.cache
def _patient_group() -> distributed.ProcessGroup:
    """For waiting; in the group that networks are trained with, nobody is late for minutes."""
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return cast(distributed.ProcessGroup, group)  # all processes are in it
