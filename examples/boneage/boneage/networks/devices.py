"""Where networks are trained and where they are run."""

from __future__ import annotations

import os

import torch

from boneage.config import Hardware
from boneage.errors import UserError

_AVAILABLE = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}


def pick_device(hardware: Hardware) -> torch.device:
    """The device asked for; with `auto` the first of cuda, mps and cpu that the machine has.

    Of several GPUs, those processes that torchrun or srun has started take one each.

    Raises:
        UserError: If the machine does not have it.
    """
    asked = hardware.accelerator
    for name, available in _AVAILABLE.items():
        if asked in (name, "auto") and available():
            if name == "cuda":
                return torch.device(name, _local_rank() % torch.cuda.device_count())
            return torch.device(name)
    raise UserError(
        f"hardware.accelerator: this machine has no {asked}; set it to auto "
        "(for a finished run: in its config.yaml)"
    )


def _local_rank() -> int:
    """Which of the processes on its machine this is."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
