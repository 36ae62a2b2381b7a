"""Errors with bootstrap intervals, and paired comparisons over the same images."""

from __future__ import annotations

import numpy as np
import torch
from ldlcam import cumulative_score, mean_absolute_error

AGE_BANDS = ((0, 60), (60, 120), (120, 180), (180, 10_000))


def age_errors(
    months: np.ndarray, truth: np.ndarray, *, resamples: int, seed: int
) -> dict[str, object]:
    """MAE with a 95% bootstrap interval, RMSE, bias and the shares within 6 and 12 months.

    Args:
        months: Predicted ages (N,), in months.
        truth: True ages (N,), in months.
        resamples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The figures; for no images at all, only their count.
    """
    if len(truth) == 0:
        return {"count": 0}
    difference = months.astype(np.float64) - truth
    predicted, target = (torch.from_numpy(ages.astype(np.float64)) for ages in (months, truth))
    return {
        "count": len(truth),
        "mae": float(mean_absolute_error(predicted, target)),
        "mae_interval": _interval(np.abs(difference), resamples, seed),
        "rmse": float(np.sqrt((difference**2).mean())),
        "bias": float(difference.mean()),
        "cs6": float(cumulative_score(predicted, target, 6)),
        "cs12": float(cumulative_score(predicted, target, 12)),
    }


def paired_difference(
    first: np.ndarray, second: np.ndarray, truth: np.ndarray, *, resamples: int, seed: int
) -> dict[str, object]:
    """How much smaller the second model's MAE is, in months, with a 95% paired bootstrap interval.

    The images are resampled, not the models: the interval says nothing of another seed.
    """
    gain = np.abs(first.astype(np.float64) - truth) - np.abs(second.astype(np.float64) - truth)
    low, high = _interval(gain, resamples, seed)
    return {
        "gain": float(gain.mean()),
        "interval": [low, high],
        "excludes_zero": low > 0 or high < 0,
    }


def by_group(
    months: np.ndarray, truth: np.ndarray, male: np.ndarray, *, resamples: int, seed: int
) -> dict[str, dict[str, object]]:
    """`age_errors` by sex and by age band."""
    groups = {"male": male, "female": ~male}
    for low, high in AGE_BANDS:
        name = f"{low // 12}-{high // 12} years" if high < 1000 else f"{low // 12}+ years"
        groups[name] = (truth >= low) & (truth < high)
    return {
        name: age_errors(months[mask], truth[mask], resamples=resamples, seed=seed)
        for name, mask in groups.items()
    }


def _interval(values: np.ndarray, resamples: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    return [float(bound) for bound in np.percentile(means, (2.5, 97.5))]
