"""Every test image, with what each model said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from boneage.data.samples import Samples
from boneage.report.wording import sex


@dataclass(frozen=True)
class ImageRow:
    """One test image and its readings, in months.

    Attributes:
        id: Its id in the table of the data set.
        sex: In words.
        months: The true age.
        told: Age and error by model, the chosen one's first.
        off: How far the chosen model is off.
        interval: The chosen model's 90% interval; None if it tells none.
        holds: Whether the truth lies in that.
    """

    id: str
    sex: str
    months: float
    told: list[tuple[float, float]]
    off: float
    interval: tuple[float, float] | None
    holds: bool


def image_rows(
    rows: np.ndarray,
    samples: Samples,
    predicted: Mapping[str, Mapping[str, np.ndarray]],
    chosen: str,
) -> list[ImageRow]:
    """The given images with what was said of them, the chosen model's worst first.

    Args:
        rows: Which images (N,).
        samples: All images.
        predicted: By model, the columns of `AgePrediction` for these images, each (N,).
        chosen: One of the models.
    """
    truth = samples.months[rows].astype(np.float64)
    names = chosen_first(predicted, chosen)
    months = np.stack([predicted[name]["months"] for name in names], axis=1).astype(np.float64)
    errors = months - truth[:, None]
    low, high = (predicted[chosen][end] for end in ("low", "high"))
    known = np.isfinite(low) & np.isfinite(high)
    holds = (truth >= low) & (truth <= high)
    return [
        ImageRow(
            id=samples.ids[rows[i]],
            sex=sex(samples.male[rows[i]]),
            months=float(truth[i]),
            told=list(zip(months[i].tolist(), errors[i].tolist(), strict=True)),
            off=float(abs(errors[i, 0])),
            interval=(float(low[i]), float(high[i])) if known[i] else None,
            holds=bool(holds[i]),
        )
        for i in np.argsort(-np.abs(errors[:, 0]), kind="stable")
    ]


def chosen_first(names: Mapping[str, object], chosen: str) -> list[str]:
    """The models' names, the chosen one's first and the others' in their order."""
    return [chosen, *(name for name in names if name != chosen)]
