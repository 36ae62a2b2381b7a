"""What is read of one image, and how a table's row says it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from ldlcam import LabelDistribution

from boneage.data.dicom import Film

Box = tuple[float, float, float, float]

FIGURES = ("months", "sd", "p5", "p95", "entropy")
_CORNERS = ("x1", "y1", "x2", "y2")


def columns(regions: Iterable[str]) -> tuple[str, ...]:
    """The columns of a table of readings in which those regions were looked for."""
    boxes = (f"{region}_{corner}" for region in regions for corner in _CORNERS)
    return ("path", "sex", *FIGURES, *boxes, "flags", "error")


@dataclass(frozen=True, eq=False)
class Reading:
    """What a model says of one image, and what it saw of it.

    Attributes:
        film: The image as the networks saw it: of even contrast, a right hand turned about. Its
            sex is the one that was read with.
        months: The age.
        sd: Standard deviation in months; NaN without a distribution, as the entropy.
        low: Lower end of the 90% interval in months; NaN where there is none, as the upper one.
        high: Upper end of it.
        entropy: Entropy of the distribution, in nats.
        distribution: Over the ages in months, of no batch shape; None of a model that tells single
            ages.
        boxes: (x1, y1, x2, y2) of each region, in pixels of the image as it lies in its file.
        found: Whether each region was found; where not, its box is the whole image.
        crops: What the age networks saw of each of their regions, `whole` among them, (S, S) uint8.
    """

    film: Film
    months: float
    sd: float
    low: float
    high: float
    entropy: float
    distribution: LabelDistribution | None
    boxes: Mapping[str, Box]
    found: Mapping[str, bool]
    crops: Mapping[str, np.ndarray]

    @property
    def flags(self) -> tuple[str, ...]:
        """What is to be known of a reading before it is believed."""
        flags = [f"no-{region}" for region, found in self.found.items() if not found]
        if self.film.male is None:
            flags.append("sex-unknown")
        if self.film.mirrored:
            flags.append("right-hand")
        return tuple(flags)


def table_row(reading: Reading) -> dict[str, str]:
    """A reading as cells of its `columns`, all but the path and the error."""
    figures = (reading.months, reading.sd, reading.low, reading.high, reading.entropy)
    corners = {
        f"{region}_{name}": f"{corner:.1f}"
        for region, box in reading.boxes.items()
        for name, corner in zip(_CORNERS, box, strict=True)
    }
    return {
        "sex": {True: "M", False: "F", None: ""}[reading.film.male],
        **dict(zip(FIGURES, figure_cells(figures), strict=True)),
        **corners,
        "flags": " ".join(reading.flags),
    }


def figure_cells(figures: Iterable[float]) -> list[str]:
    """Figures as cells: a model without a distribution knows no spread, so those stay empty."""
    return ["" if math.isnan(figure) else f"{figure:.2f}" for figure in figures]
