"""Single images on the page: which are shown, and what is shown of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ldlcam import normalize_heatmaps

from boneage.config import Config
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.networks.regions import erase_regions
from boneage.report.pictures import grey_picture, heat_picture
from boneage.report.wording import ANNOTATED, FOUND, sex
from boneage.run_folder import read_array
from boneage.stages.crop import crop_path
from boneage.stages.evaluate import test_predictions
from boneage.stages.localize import Found
from boneage.stages.plan import RunStages
from boneage.stages.prepare import whole_path


@dataclass(frozen=True)
class RegionView:
    """A found region of one image: its box (x, y, width, height), heat map and crop as pictures.

    `seen` is the image as the attention network saw it.
    """

    key: str
    name: str
    box: tuple[float, float, float, float]
    found: bool
    seen: str
    heat: str
    crop: str


@dataclass(frozen=True)
class Reading:
    """What one model says of an image, in months; places on the ruler in percent."""

    model: str
    months: float
    sd: float
    low: float
    high: float
    error: float
    at: float
    band: tuple[float, float] | None


@dataclass(frozen=True)
class Case:
    """One image: its size in pixels, its picture, and all that was found in it and said of it."""

    id: str
    sex: str
    months: float
    at: float
    width: int
    height: int
    radiograph: str
    regions: list[RegionView]
    annotated: list[tuple[str, tuple[float, float, float, float]]]
    readings: list[Reading]


def evenly_by_age(rows: np.ndarray, samples: Samples, count: int) -> np.ndarray:
    """So many of the rows, spread evenly over the order of their ages; all when there are fewer."""
    by_age: np.ndarray = rows[np.argsort(samples.months[rows], kind="stable")]
    if len(by_age) > count:
        by_age = by_age[((np.arange(count) + 0.5) * len(by_age) / count).astype(int)]
    return by_age


def annotated_rows(samples: Samples, count: int) -> np.ndarray:
    """Images of the scoring half: half of the places for those with a hand box, half for a wrist's.

    The two need not be the same images.
    """
    chosen = np.array([], dtype=np.int64)
    for name in ("Hand", "Wrist"):
        others = np.setdiff1d(samples.boxed_rows(name, splits.BOXES_SCORE), chosen)
        chosen = np.concatenate([chosen, evenly_by_age(others, samples, count // 2)])
    return chosen[np.argsort(samples.months[chosen], kind="stable")]


def by_error(
    rows: np.ndarray, samples: Samples, stage: Any, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows with a model's largest and its smallest errors, the extremes first; none is both."""
    error = np.abs(test_predictions(stage, rows)["months"] - samples.months[rows])
    order = rows[np.argsort(error, kind="stable")]
    half = len(order) // 2
    return order[half:][::-1][:count], order[:half][:count]


def gather(
    rows: np.ndarray,
    config: Config,
    samples: Samples,
    stages: RunStages,
    found: Mapping[str, Found],
) -> list[Case]:
    """All that the page shows of the given images; none of them may be a training image."""
    if len(rows) == 0:
        return []
    largest = max(_attention_size(config, region) for region in found)
    whole = _rows_of(whole_path(stages.prepared, max(largest, config.training.size)), rows)
    views = {region: _views(region, rows, config, samples, stages, found) for region in found}
    said = {name: test_predictions(stage, rows) for name, stage in stages.ages.items()}
    cases = []
    for i, row in enumerate(rows):
        height, width = samples.shapes[row].tolist()
        months = float(samples.months[row])
        cases.append(
            Case(
                id=samples.ids[row],
                sex=sex(samples.male[row]),
                months=months,
                at=_on_ruler(months, config),
                width=width,
                height=height,
                radiograph=grey_picture(whole[i]),
                regions=[views[region][i] for region in found],
                annotated=[
                    (ANNOTATED[name], _corner_and_size(boxes[row]))
                    for name, boxes in samples.truth.items()
                    if np.isfinite(boxes[row, 0])
                ],
                readings=[_reading(name, said[name], i, months, config) for name in said],
            )
        )
    return cases


def _views(
    region: str,
    rows: np.ndarray,
    config: Config,
    samples: Samples,
    stages: RunStages,
    found: Mapping[str, Found],
) -> list[RegionView]:
    seen = _rows_of(whole_path(stages.prepared, _attention_size(config, region)), rows)
    if erased := [found[name].of(rows) for name in config.localization.erased_for(region)]:
        shapes = torch.from_numpy(samples.shapes[rows])
        seen = erase_regions(seen, erased, shapes, [samples.ids[row] for row in rows])
    heatmaps = _rows_of(stages.regions[region] / "heatmaps.npy", rows)
    heat = normalize_heatmaps(torch.from_numpy(heatmaps)).numpy()
    crops = _rows_of(crop_path(stages.cropped, stages.prepared, region, config), rows)
    return [
        RegionView(
            key=region,
            name=FOUND[region],
            box=_corner_and_size(found[region].boxes[row]),
            found=bool(found[region].valid[row]),
            seen=grey_picture(seen[i]),
            heat=heat_picture(heat[i]),
            crop=grey_picture(crops[i]),
        )
        for i, row in enumerate(rows)
    ]


def _attention_size(config: Config, region: str) -> int:
    return config.localization.localizer(region).size


def _rows_of(path: Any, rows: np.ndarray) -> np.ndarray:
    return np.asarray(read_array(path, mapped=True)[rows])


def _reading(
    model: str, said: Mapping[str, np.ndarray], i: int, truth: float, config: Config
) -> Reading:
    months, sd, low, high = (float(said[name][i]) for name in ("months", "sd", "low", "high"))
    band = None
    if np.isfinite([low, high]).all():
        start = _on_ruler(low, config)
        band = (start, _on_ruler(high, config) - start)
    return Reading(model, months, sd, low, high, months - truth, _on_ruler(months, config), band)


def _on_ruler(months: float, config: Config) -> float:
    share = (months - config.bins.first) / (config.bins.last - config.bins.first)
    return round(100 * min(max(share, 0.0), 1.0), 2)


def _corner_and_size(box: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(float(corner), 2) for corner in box)
    return x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)
