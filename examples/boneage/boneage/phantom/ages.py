"""Where age is written: the prior of ages, how far each region can be trusted, and the floor.

Every region of the hand shows an age of its own, the true age plus a normal error with that
region's standard deviation. A reader who knew those ages exactly could do no better than
:func:`bayes_floor`, so every error measured on the phantom is reported beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

Variant = Literal["default", "swapped", "no-age", "shortcut"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

FIRST_AGE, LAST_AGE = 1, 228
PRIOR_MEAN, PRIOR_SD = 127.0, 41.0
MALE_SHARE = 0.54

REGION_SD: Mapping[str, float] = MappingProxyType(
    {"carpal": 4.0, "metacarpal": 10.0, "forearm": 20.0, "phalanges": 24.0}
)
SHORTCUT_SD = 4.0


def region_sd(variant: Variant = "default") -> dict[str, float]:
    """Standard deviation of each region's age about the true age, in months.

    Args:
        variant: ``"swapped"`` exchanges the carpals' figure with the metacarpals'; in
            ``"no-age"`` no region knows anything of the label, whatever its figure.

    Returns:
        Region name -> months.

    Example:
        >>> region_sd("swapped")["metacarpal"]
        4.0
    """
    sd = dict(REGION_SD)
    if variant == "swapped":
        sd["carpal"], sd["metacarpal"] = sd["metacarpal"], sd["carpal"]
    return sd


def draw_age(rng: np.random.Generator) -> int:
    """One age from the prior, in whole months: normal, rounded, clipped to 1..228."""
    return int(np.clip(np.rint(rng.normal(PRIOR_MEAN, PRIOR_SD)), FIRST_AGE, LAST_AGE))


def age_prior() -> tuple[np.ndarray, np.ndarray]:
    """The distribution that :func:`draw_age` draws from.

    Returns:
        Ages (228,) in months, and their probabilities (228,), which sum to 1.
    """
    ages = np.arange(FIRST_AGE, LAST_AGE + 1, dtype=np.float64)
    edges = np.concatenate([[-math.inf], ages[1:] - 0.5, [math.inf]])
    below = [0.5 * (1 + math.erf((e - PRIOR_MEAN) / (PRIOR_SD * math.sqrt(2)))) for e in edges]
    return ages, np.diff(below)


def bayes_floor(regions: Iterable[str], variant: Variant = "default") -> float:
    """Mean absolute error of the ideal reader of the given regions, in months.

    The reader sees the regions' own ages exactly, knows their standard deviations and the
    prior of ages, and answers with the posterior median. No reader of the images can do
    better; a reader of images also meets bones that have stopped changing, and pixels.
    The marker is not a region: in ``"shortcut"`` a reader of the marker may fall below.

    Args:
        regions: names out of ``REGION_SD``; a name given twice counts once. None at all
            gives the error of the best constant.
        variant: the phantom's variant.

    Returns:
        The expected absolute error, in months.

    Raises:
        ValueError: a region or the variant is unknown.

    Example:
        >>> round(bayes_floor(["carpal", "metacarpal"]), 2)
        2.93
        >>> round(bayes_floor([]), 1)
        32.6
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    sd = region_sd(variant)
    names = sorted(set(regions))
    if unknown := [name for name in names if name not in sd]:
        raise ValueError(f"regions: expected names out of {', '.join(sd)}, got {unknown}")
    ages, prior = age_prior()
    if variant == "no-age" or not names:
        median = ages[np.searchsorted(np.cumsum(prior), 0.5)]
        return float(prior @ np.abs(ages - median))

    # Independent normal errors: the precision-weighted mean of the regions is sufficient.
    spread = sum(sd[name] ** -2 for name in names) ** -0.5
    step = spread / 16
    seen = np.arange(FIRST_AGE - 6 * spread, LAST_AGE + 6 * spread, step)
    density = np.exp(-0.5 * ((seen[:, None] - ages) / spread) ** 2)
    joint = prior * density * (step / (spread * math.sqrt(2 * math.pi)))
    cumulative = np.cumsum(joint, axis=1)
    median = ages[np.argmax(cumulative >= 0.5 * cumulative[:, -1:], axis=1)]
    return float(np.sum(joint * np.abs(ages - median[:, None])))
