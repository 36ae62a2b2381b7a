"""Where networks are trained and where they are run."""

from __future__ import annotations

from collections.abc import Callable

import torch

from boneage.config import Hardware
from boneage.errors import UserError
from boneage.processes import local_rank

_AVAILABLE: dict[str, Callable[[], bool]] = {
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
                return torch.device(name, local_rank() % torch.cuda.device_count())
            return torch.device(name)
    raise UserError(
        f"hardware.accelerator: this machine has no {asked}; set it to auto "
        "(for a finished run: in its config.yaml)"
    )


def check_devices(hardware: Hardware) -> None:
    """Check that this machine has a device for each of its processes; of CPUs it has.

    Raises:
        UserError: If it has fewer.
    """
    kind = pick_device(hardware).type
    present = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, hardware.devices)
    if hardware.devices > present:
        raise UserError(
            f"hardware.devices: {hardware.devices} are asked for, but this machine shows {present} "
            f"of {kind} to the process; give --devices no more than that, or let each process see "
            "all of its machine's"
        )
