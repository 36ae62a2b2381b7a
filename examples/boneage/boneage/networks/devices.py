"""Where networks are trained and where they are run."""

from __future__ import annotations

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

    Raises:
        UserError: If the machine does not have it.
    """
    asked = hardware.accelerator
    for name, available in _AVAILABLE.items():
        if asked in (name, "auto") and available():
            return torch.device(name)
    raise UserError(
        f"hardware.accelerator: this machine has no {asked}; set it to auto "
        "(for a finished run: in its config.yaml)"
    )
