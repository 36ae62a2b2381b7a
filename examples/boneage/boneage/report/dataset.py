"""The data set in a few figures: how many of whom, how old, and how large the images are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from boneage.data.samples import Samples
from boneage.report.wording import PARTS


@dataclass(frozen=True)
class Part:
    """The images of one use: how many, of how many boys, and their ages in months."""

    name: str
    count: int
    boys: int
    youngest: float
    median: float
    oldest: float


def describe(samples: Samples) -> list[Part]:
    """The parts of a data set, and last all of it."""
    masks = {words: samples.parts == part for part, words in PARTS.items()}
    masks["all"] = np.ones(len(samples), dtype=bool)
    return [_part(name, samples, mask) for name, mask in masks.items() if mask.any()]


def image_sizes(samples: Samples) -> str:
    """Width and height of the images in pixels, or from the smallest of either to the largest."""
    ends = (samples.shapes.min(0), samples.shapes.max(0))
    smallest, largest = (f"{width} x {height}" for height, width in ends)
    return smallest if smallest == largest else f"{smallest} to {largest}"


def _part(name: str, samples: Samples, mask: np.ndarray) -> Part:
    months = samples.months[mask]
    return Part(
        name,
        count=int(mask.sum()),
        boys=int(samples.male[mask].sum()),
        youngest=float(months.min()),
        median=float(np.median(months)),
        oldest=float(months.max()),
    )
