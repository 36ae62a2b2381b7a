"""Report: one HTML page that holds everything of a run, and needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from boneage.config import Config
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.report import cases, certainty, dataset, figures, listing, tables, wording
from boneage.report.environment import templates
from boneage.report.placement import Placement, place
from boneage.run_folder import atomic_path
from boneage.stages.evaluate import test_predictions
from boneage.stages.localize import Found
from boneage.stages.plan import RunStages

_SAMPLES = 6
_ANNOTATED = 6
_EXTREMES = 4


def write_report(config: Config, folder: Path, stages: RunStages, metrics: dict[str, Any]) -> Path:
    """Write the run's page, whole or not at all.

    Args:
        config: The run's configuration.
        folder: The run's folder.
        stages: Its stages, all of them done.
        metrics: What `evaluate` measured.

    Returns:
        The page, `report.html` in the run's folder.
    """
    samples = Samples.load(stages.prepared.folder)
    found = {region: Found.load(stage) for region, stage in stages.regions.items()}
    placement = place(samples, found)
    trained = metrics["ages"]["models"]
    # Chosen on validation images, as every choice is.
    by_validation = sorted(trained, key=lambda name: trained[name]["validation_mae"])
    template = templates(autoescape=True).get_template("page.html")
    page = template.render(
        metrics=metrics,
        chosen=by_validation[0],
        members={name: config.members(name) for name in trained},
        reading=config.reading,
        seeds=_seeds(config),
        found_names={region: wording.FOUND[region] for region in found},
        group_names=wording.GROUPS,
        overlaps=tables.overlaps(metrics),
        ages=tables.ages(metrics),
        groups=tables.groups(metrics),
        intervals=tables.intervals(metrics),
        comparisons=tables.comparisons(metrics),
        placement=placement,
        quality=_quality(samples, found),
        parts_of_data=dataset.describe(samples),
        image_sizes=dataset.image_sizes(samples),
        configuration=yaml.safe_dump(metrics["configuration"], sort_keys=False),
        **_script(),
        **_images(config, samples, stages, found, by_validation[0]),
        **_localization_figures(metrics, placement),
        **_ages(config, samples, stages, metrics, by_validation),
    )
    path = folder / "report.html"
    with atomic_path(path) as temporary:
        # Names of files need not be text.
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return path


def _script() -> dict[str, str]:
    """The page's own script, and its fingerprint: the browser is to run no other."""
    script = (resources.files("boneage") / "report/templates/sort.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"script": script, "script_digest": f"sha256-{digest}"}


def _seeds(config: Config) -> dict[str, int]:
    """All seeds that decided anything, by what they decided."""
    seeds = {"networks and bootstrap": config.seed, "split": config.split.seed}
    if config.drawn:
        seeds["phantom"] = config.drawn.seed
    own = {model.name: model.seed for model in config.training.models}
    return seeds | {f"model {name}": seed for name, seed in own.items() if seed is not None}


def _images(
    config: Config,
    samples: Samples,
    stages: RunStages,
    found: Mapping[str, Found],
    model: str,
) -> dict[str, Any]:
    """The single images: some of all ages, some with annotated boxes, the worst and the best."""
    test = samples.rows(splits.TEST)
    worst, best = cases.by_error(test, samples, stages.ages[model], _EXTREMES)
    shown = {
        "samples": cases.evenly_by_age(test, samples, _SAMPLES),
        "annotated": cases.annotated_rows(samples, _ANNOTATED),
        "worst": worst,
        "best": best,
    }
    return {
        "cases": {
            name: cases.gather(rows, config, samples, stages, found) for name, rows in shown.items()
        }
    }


def _localization_figures(
    metrics: Mapping[str, Any], placement: Placement | None
) -> dict[str, Any]:
    thresholds, rows = tables.sweep(tables.overlaps(metrics))
    scores = {"mean_iou": "mean IoU", "ap50": "AP50"} if rows else {}
    return {
        "thresholds": thresholds,
        "sweep": rows,
        "curves": [figures.sweep_figure(thresholds, rows, *score) for score in scores.items()],
        "placement_figure": figures.placement_figure(placement) if placement else None,
    }


def _ages(
    config: Config,
    samples: Samples,
    stages: RunStages,
    metrics: dict[str, Any],
    by_validation: list[str],
) -> dict[str, Any]:
    """What was said of all test images: figures of errors and of certainty, and every reading."""
    rows = samples.rows(splits.TEST)
    truth, male = samples.months[rows].astype(np.float64), samples.male[rows]
    predicted = {name: test_predictions(stage, rows) for name, stage in stages.ages.items()}
    errors = {name: values["months"] - truth for name, values in predicted.items()}
    reach = 1.05 * max(
        float(np.abs([error.min(), error.max(), *figures.agreement(error)]).max())
        for error in errors.values()
    )
    trust = certainty.trust(config, stages, truth, rows, metrics)
    reader = next((name for name in by_validation if name in trust), None)
    few = cases.evenly_by_age(rows, samples, _SAMPLES)
    return {
        "age_figures": {
            name: (
                figures.age_error_figure(name, error, truth, male, reach),
                figures.bland_altman_figure(name, error, truth, reach),
            )
            for name, error in errors.items()
        },
        "trust": trust,
        "single": [name for name in by_validation if name not in trust],
        "learned": reader and certainty.learned(reader, config, stages, samples, few),
        "image_rows": listing.image_rows(rows, samples, predicted, by_validation[0]),
        "models_in_order": listing.chosen_first(predicted, by_validation[0]),
    }


def _quality(samples: Samples, found: Mapping[str, Found]) -> dict[str, dict[str, Any]]:
    """By found region: images without one, boxes at the border, and how much of the image it is."""
    height, width = samples.shapes.T
    rows = {}
    for region, regions in found.items():
        x1, y1, x2, y2 = regions.boxes.T
        border = (x1 <= 0) | (y1 <= 0) | (x2 >= width) | (y2 >= height)
        share = (x2 - x1) * (y2 - y1) / (width * height)
        rows[region] = {
            "missing": regions.whole_image_instead,
            "border": int((border & regions.valid).sum()),
            "share": float(np.median(share[regions.valid])) if regions.valid.any() else None,
        }
    return rows
