"""Errors with bootstrap intervals, paired comparisons over the same images, and coverage."""

from __future__ import annotations

import math

import numpy as np
import torch
from ldlcam import (
    bootstrap,
    cumulative_score,
    mean_absolute_error,
    mean_error,
    root_mean_squared_error,
)
from torch import Tensor

AGE_BANDS = ((0, 60), (60, 120), (120, 180), (180, 10_000))

_NORMAL_95 = 1.959964
# Resampling so few patients tells too little of others: of one, that there is no doubt at all.
_FEWEST = 10


def age_errors(
    months: np.ndarray,
    truth: np.ndarray,
    patients: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> dict[str, object]:
    """MAE with a 95% bootstrap interval, RMSE, bias and the shares within 6 and 12 months.

    Args:
        months: Predicted ages (N,), in months.
        truth: True ages (N,), in months.
        patients: Whom each image shows (N,), whose images are drawn together.
        resamples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The figures, of one patient without an interval; for no images at all, only their count.
    """
    if len(truth) == 0:
        return {"count": 0}
    predicted, target = _tensors(months, truth)
    mae, low, high = bootstrap(
        mean_absolute_error,
        predicted,
        target,
        cluster=torch.from_numpy(patients),
        resamples=resamples,
        seed=seed,
    )
    return {
        "count": len(truth),
        "mae": float(mae),
        "mae_interval": None if low.isnan() else [float(low), float(high)],
        "rmse": float(root_mean_squared_error(predicted, target)),
        "bias": float(mean_error(predicted, target)),
        "cs6": float(cumulative_score(predicted, target, 6)),
        "cs12": float(cumulative_score(predicted, target, 12)),
    }


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    truth: np.ndarray,
    patients: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> dict[str, object]:
    """How much smaller the second model's MAE is, in months, with a 95% paired bootstrap interval.

    Patients with their images are resampled, not the models: the interval says nothing of another
    seed.

    Args:
        first: Predicted ages (N,), or (N, S) of S models each, in months.
        second: Predicted ages of the other, of either shape.
        truth: True ages (N,), in months.
        patients: Whom each image shows (N,).
        resamples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The gain, its interval, and whether that excludes 0, with enough patients to say so.
    """
    errors = (
        np.abs(months.T - truth).reshape(-1, len(truth)).mean(0) for months in (first, second)
    )

    def gain(one: Tensor, other: Tensor) -> Tensor:
        return one.mean() - other.mean()

    cluster = torch.from_numpy(patients)
    value, low, high = bootstrap(
        gain, *_tensors(*errors), cluster=cluster, resamples=resamples, seed=seed
    )
    enough = len(np.unique(patients)) >= _FEWEST
    return {
        "gain": float(value),
        "interval": [float(low), float(high)],
        "excludes_zero": enough and bool(low > 0 or high < 0),
    }


def interval_scores(low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> dict[str, object]:
    """How often intervals hold the true age, and how wide they are.

    Args:
        low: Lower ends (N,), in months.
        high: Upper ends (N,), in months.
        truth: True ages (N,), in months.

    Returns:
        The share of ages inside, its 95% Wilson interval (which, unlike a bootstrap's, is no point
        where all ages are inside), and the mean width; for no images at all, only their count.
    """
    if len(truth) == 0:
        return {"count": 0}
    share = float(((truth >= low) & (truth <= high)).mean())
    return {
        "count": len(truth),
        "coverage": share,
        "coverage_interval": _wilson(share, len(truth)),
        "width": float((high - low).mean()),
    }


def by_group(
    months: np.ndarray,
    truth: np.ndarray,
    male: np.ndarray,
    patients: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, object]]:
    """`age_errors` by sex and by age band."""
    return {
        name: age_errors(months[mask], truth[mask], patients[mask], resamples=resamples, seed=seed)
        for name, mask in groups(truth, male).items()
    }


def groups(truth: np.ndarray, male: np.ndarray) -> dict[str, np.ndarray]:
    """Which of the images belong to each sex and to each age band: masks (N,) by name."""
    masks = {"male": male, "female": ~male}
    for low, high in AGE_BANDS:
        name = f"{low // 12}-{high // 12} years" if high < 1000 else f"{low // 12}+ years"
        masks[name] = (truth >= low) & (truth < high)
    return masks


def _wilson(share: float, count: int) -> list[float]:
    """95% interval of a share of so many; Wilson, JASA 1927."""
    weight = _NORMAL_95**2 / count
    middle = (share + weight / 2) / (1 + weight)
    reach = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return [max(middle - reach, 0.0), min(middle + reach, 1.0)]


def _tensors(*ages: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(each.astype(np.float64)) for each in ages]
