"""Slow, independent references in numpy and scipy, float64, one value at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Array = NDArray[np.float64]


def gaussian_label(
    value: float,
    centers: Array,
    edges: Array,
    sigma: float,
    ends: str = "renormalize",
    integrate: bool = False,
) -> Array:
    if ends == "preserve_mean":
        if integrate:
            raise NotImplementedError("the tilt of an integrated Gaussian is no move of its centre")
        return gaussian_label(_moved_center(value, centers, edges, sigma), centers, edges, sigma)
    return _label(stats.norm(value, sigma), value, centers, edges, ends, integrate)


def laplace_label(
    value: float, centers: Array, edges: Array, scale: float, ends: str, integrate: bool
) -> Array:
    return _label(stats.laplace(value, scale), value, centers, edges, ends, integrate)


def _label(
    density: Any, value: float, centers: Array, edges: Array, ends: str, integrate: bool
) -> Array:
    if integrate:
        # differences of numbers near 1 do not resolve the tails
        below, above = density.cdf(edges), density.sf(edges)
        shares = np.where(centers < value, np.diff(below), -np.diff(above))
    else:
        shares = density.pdf(centers) * np.diff(edges)
    if ends == "extend":
        shares[0] += density.cdf(edges[0])
        shares[-1] += density.sf(edges[-1])
    normalized: Array = shares / shares.sum()
    return normalized


def crps(value: float, probs: Array, centers: Array) -> float:
    """By the energy form: E|X - y| - E|X - X'| / 2."""
    gaps = np.abs(centers[:, None] - centers)
    return float(probs @ np.abs(centers - value) - probs @ gaps @ probs / 2)


def _moved_center(value: float, centers: Array, edges: Array, sigma: float) -> float:
    def bias(center: float) -> float:
        logs = stats.norm.logpdf(centers, center, sigma) + np.log(np.diff(edges))
        return float(special.softmax(logs) @ centers - value)

    reach = 5 * sigma**2 + 5 * sigma + 1
    return float(optimize.brentq(bias, value - reach, value + reach, xtol=1e-13))


def triangular_label(value: float, centers: Array, width: float) -> Array:
    label = np.zeros(len(centers))
    for i, center in enumerate(centers):
        if abs(center - value) <= width:
            label[i] = 1 - abs(center - value) / width
    return label


def divergence(label: Array, logits: Array) -> float:
    """KL(label, softmax(logits)) in nats."""
    return float(special.rel_entr(label, special.softmax(logits)).sum())


def cdf(value: Array, probs: Array, edges: Array) -> Array:
    return np.interp(value, edges, np.concatenate([[0.0], np.cumsum(probs)]))


def quantile(level: Array, probs: Array, edges: Array) -> Array:
    return np.interp(level, np.concatenate([[0.0], np.cumsum(probs)]), edges)
