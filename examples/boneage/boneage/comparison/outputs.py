"""What networks told, in one form whatever their loss, and how well it fits the true ages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ldlcam import (
    Bins,
    ConformalIntervals,
    interval_coverage,
    mean_crps,
)
from torch import Tensor

from boneage.networks.regressor import as_distribution
from boneage.run_folder import Stage, read_arrays, write_arrays
from boneage.stages.statistics import age_errors

_FILE = "outputs.npz"
_LEVEL = 0.9

Outputs = dict[str, Tensor]
"""Logits (S, N, K), or ages (S, N) in months, of S seeds, by the name of the part."""


def save_outputs(stage: Stage, outputs: Mapping[str, Sequence[Tensor]]) -> None:
    """Write `outputs.npz`, an array a part."""
    arrays = {part: torch.stack(list(seeds)).numpy() for part, seeds in outputs.items()}
    write_arrays(stage / _FILE, arrays)


def load_outputs(stage: Stage) -> Outputs:
    """Read what `save_outputs` wrote."""
    return {part: torch.from_numpy(array) for part, array in read_arrays(stage / _FILE).items()}


def score(
    output: Tensor,
    truth: Tensor,
    patients: np.ndarray,
    calibration: tuple[Tensor, Tensor],
    bins: Bins,
    **sampling: int,
) -> dict[str, Any]:
    """Errors, CRPS, and the 90% intervals as told and as calibrated, of one network.

    Args:
        output: Of the test images, logits (N, K) or ages (N,) in months.
        truth: Their ages (N,), in months.
        patients: Whom each shows (N,).
        calibration: Outputs and ages of the images that conformal intervals are calibrated on.
        bins: The bins of the ages.
        **sampling: Of the bootstrap.

    Returns:
        The figures, None where there is none: a network that tells no distribution has no
        intervals of its own, and its CRPS is its MAE.
    """
    predicted, single = as_distribution(output, bins), output.ndim == 1
    conformal = ConformalIntervals(_LEVEL, score="absolute" if single else "quantile")
    conformal.fit(as_distribution(calibration[0], bins), calibration[1])
    low, high = predicted.interval(_LEVEL)
    kept_low, kept_high = conformal(predicted)
    # With too few images to calibrate on, intervals are unbounded.
    width = float((kept_high - kept_low).mean())
    figures = age_errors(predicted.mean.numpy(), truth.numpy(), patients, **sampling)
    return {
        **figures,
        "crps": figures["mae"] if single else float(mean_crps(predicted, truth)),
        "coverage90": None if single else float(interval_coverage(low, high, truth)),
        "width90": None if single else float((high - low).mean()),
        "calibrated_coverage90": float(interval_coverage(kept_low, kept_high, truth)),
        "calibrated_width90": width if math.isfinite(width) else None,
    }
