"""Evaluate: every figure of a run, beside its control, in one `metrics.json`."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ldlcam import LabelDistribution, expected_calibration_error, mean_crps, pointing_game

from boneage import phantom
from boneage.config import DISCRIMINATIVE, TRUTH, Config, PhantomData
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.networks.bins import make_bins
from boneage.networks.reading import AgePrediction, Calibration
from boneage.networks.regressor import as_distribution
from boneage.networks.storage import load_network
from boneage.readings import FIGURES, figure_cells
from boneage.run_folder import Stage, atomic_path, read_array, read_arrays, read_json, write_json
from boneage.stages.controls import median_box_scores
from boneage.stages.localize import Found
from boneage.stages.plan import RunStages
from boneage.stages.statistics import (
    age_errors,
    by_group,
    groups,
    interval_scores,
    paired_difference,
)

_PACKAGES = ("ldlcam", "boneage", "torch", "timm", "lightning", "numpy")


def evaluate(config: Config, folder: Path, stages: RunStages) -> dict[str, Any]:
    """Score regions and ages on images that neither trained nor chose.

    Writes `metrics.json` and `predictions.csv` (the test images) into the run's folder.

    Returns:
        The metrics.
    """
    samples = Samples.load(stages.prepared.folder)
    metrics: dict[str, Any] = {
        "preset": config.preset,
        "data": describe_data(config, samples),
        "seed": config.seed,
        "localization": {
            region: localization_scores(region, stages.attention[region], found, samples)
            for region, found in stages.regions.items()
        },
        "ages": _ages(config, samples, stages.ages),
        "versions": versions(),
        "configuration": config.model_dump(mode="json", exclude={"data"}),
    }
    if config.drawn:
        found = metrics["localization"].items()
        falls_on = {region: scores["falls_on"] for region, scores in found}
        metrics["ages"]["floors"] = floors(config, config.drawn, falls_on)
    metrics["seconds"] = stages.seconds()
    write_json(folder / "metrics.json", metrics)
    _write_predictions(folder / "predictions.csv", samples, stages.ages)
    return metrics


def versions() -> dict[str, str]:
    """Versions of what the figures were computed with."""
    packages = {name: metadata.version(name) for name in _PACKAGES}
    return packages | {"python": platform.python_version()}


def describe_data(config: Config, samples: Samples) -> dict[str, Any]:
    """How many images there are in each part, of how many patients, and of which data set."""
    parts, counts = np.unique(samples.parts, return_counts=True)
    described: dict[str, Any] = {
        "images": len(samples),
        "parts": dict(zip(parts.tolist(), counts.tolist(), strict=True)),
    }
    if config.table.patient is not None:
        described["patients"] = len(np.unique(samples.patients))
    if config.data:
        described["name"] = config.data.resolve().name
    elif config.phantom:
        described |= {
            "name": f"phantom ({config.phantom.variant})",
            "phantom_fingerprint": phantom.fingerprint(),
        }
    return described


def provenance(config: Config, samples: Samples) -> dict[str, Any]:
    """What figures were made of: the data, the versions and the configuration."""
    return {
        "data": describe_data(config, samples),
        "versions": versions(),
        "configuration": config.model_dump(mode="json", exclude={"data"}),
    }


def localization_scores(
    region: str, attention: Stage, stage: Stage, samples: Samples
) -> dict[str, Any]:
    """Every figure of one found region, against the annotated ones that it may fall on."""
    found, chosen = Found.load(stage), read_json(stage / "threshold.json")
    heatmaps = torch.from_numpy(read_array(stage / "heatmaps.npy"))
    against = {}
    for name in TRUTH[region]:
        rows = samples.boxed_rows(name, splits.BOXES_SCORE)
        if name not in chosen["pairs"] or len(rows) == 0:
            continue
        pair = chosen["pairs"][name]
        at = next(row for row in pair["score"] if row["threshold"] == pair["threshold"])
        against[name] = {
            **at,
            "pointing": float(
                pointing_game(
                    heatmaps[torch.from_numpy(rows)],
                    torch.from_numpy(samples.truth[name][rows]),
                    torch.from_numpy(samples.shapes[rows]),
                )
            ),
            "count": len(rows),
            "control": median_box_scores(samples, name),
            "sweep": pair["score"],
        }
    return {
        "threshold": chosen["threshold"],
        "chosen_on": chosen["chosen_on"],
        "nearest": chosen["nearest"],
        "falls_on": chosen["falls_on"],
        "whole_image_instead": found.whole_image_instead,
        "validation_mae": read_json(attention / "training.json")["validation_mae"],
        "against": against,
    }


def _ages(config: Config, samples: Samples, told: dict[str, Stage]) -> dict[str, Any]:
    rows = samples.rows(splits.TEST)
    truth, patients = samples.months[rows], samples.patients[rows]
    sampling = {"resamples": config.bootstrap, "seed": config.seed}
    predicted = {name: test_predictions(stage, rows) for name, stage in told.items()}
    comparisons = {
        f"{first} vs {second}": paired_difference(
            predicted[first]["months"], predicted[second]["months"], truth, patients, **sampling
        )
        for first, second in combinations(predicted, 2)
    }
    return {
        "models": {name: age_scores(config, samples, stage) for name, stage in told.items()},
        "constant": age_errors(_constant(samples), truth, patients, **sampling),
        "comparisons": comparisons,
    }


def _constant(samples: Samples) -> np.ndarray:
    """One age for all test images: the median of those that train."""
    median = np.median(samples.months[samples.rows(splits.TRAIN)])
    return np.full(len(samples.rows(splits.TEST)), median)


def constant_error(samples: Samples) -> float:
    """Mean absolute error of one age for all test images, in months."""
    truth = samples.months[samples.rows(splits.TEST)]
    return float(np.abs(_constant(samples) - truth).mean())


def age_scores(config: Config, samples: Samples, stage: Stage) -> dict[str, Any]:
    """Every figure of what one model, or an ensemble, says of the test images."""
    rows = samples.rows(splits.TEST)
    truth, male, patients = samples.months[rows], samples.male[rows], samples.patients[rows]
    sampling = {"resamples": config.bootstrap, "seed": config.seed}
    values = test_predictions(stage, rows)
    intervals = _intervals(values["low"], values["high"], truth, male)
    return {
        "test": age_errors(values["months"], truth, patients, **sampling),
        "test_by_group": by_group(values["months"], truth, male, patients, **sampling),
        "test_wrong_sex_mae": float(np.abs(values["other_sex_months"] - truth).mean()),
        "coverage90": intervals["all"]["coverage"] if intervals else None,
        "intervals90": intervals,
        "distributions": {
            state: _distribution_scores(distributions, truth)
            for state, distributions in test_distributions(config, stage, rows).items()
        },
        "validation_mae": read_json(stage / "reading.json")["validation_mae"],
    }


def _intervals(
    low: np.ndarray, high: np.ndarray, truth: np.ndarray, male: np.ndarray
) -> dict[str, Any] | None:
    """Scores of 90% intervals, of all images and by group; None of a model that tells none."""
    if not np.isfinite(low).all():
        return None
    masks = {"all": np.ones(len(truth), dtype=bool)} | groups(truth, male)
    return {
        name: interval_scores(low[mask], high[mask], truth[mask]) for name, mask in masks.items()
    }


def _distribution_scores(predicted: LabelDistribution, truth: np.ndarray) -> dict[str, float]:
    target = torch.from_numpy(truth)
    return {
        "crps": float(mean_crps(predicted, target)),
        "ece": float(expected_calibration_error(predicted, target)),
        "sd": float(predicted.stddev.mean()),
    }


def _write_predictions(path: Path, samples: Samples, told: dict[str, Stage]) -> None:
    """One row a test image: its true age, and what a row of `predict` tells, by model."""
    rows = samples.rows(splits.TEST)
    predicted = [test_predictions(stage, rows) for stage in told.values()]
    figures = [values[field] for values in predicted for field in AgePrediction._fields]
    columns = (f"{name} {figure}" for name in told for figure in FIGURES)
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "male", "months", *columns))
        for row, *said in zip(rows, *figures, strict=True):
            known = samples.ids[row], samples.male[row], samples.months[row]
            writer.writerow((*known, *figure_cells(said)))


def test_predictions(stage: Stage, rows: np.ndarray) -> dict[str, np.ndarray]:
    """A model's predictions of the given rows."""
    predicted = read_arrays(stage / "predictions.npz")
    index = np.searchsorted(predicted.pop("rows"), rows)
    return {name: values[index] for name, values in predicted.items()}


def test_distributions(
    config: Config, stage: Stage, rows: np.ndarray
) -> dict[str, LabelDistribution]:
    """What a model says of the given rows as distributions over the ages.

    Returns:
        The distributions by their state: `"as trained"`, and `"corrected"` if the configuration
        asks for a correction of them. Of a model that tells single ages, none.
    """
    index = np.searchsorted(read_arrays(stage / "predictions.npz")["rows"], rows)
    outputs = torch.from_numpy(read_arrays(stage / "outputs.npz")["outputs"][index])
    if outputs.ndim == 1:
        return {}
    bins = make_bins(config.bins)
    states = {"as trained": as_distribution(outputs, bins)}
    if config.reading.temperature or config.reading.bias:
        calibration = Calibration(config.reading, bins)
        load_network(calibration, stage / "calibration.safetensors")
        states["corrected"] = calibration.distribution(outputs)
    return states


def floors(
    config: Config, drawn: PhantomData, falls_on: Mapping[str, str | None]
) -> dict[str, float]:
    """The least MAE that each model could reach, from the phantom regions that it sees.

    There is none for what sees the shortcut's marker, which tells the age itself.

    Args:
        config: The configuration.
        drawn: The phantom that its images are of.
        falls_on: The annotated region that each found one falls on; None for none of them.
    """
    everything = {"carpal", "metacarpal", "forearm", "phalanges"}
    # Erasing is of boxes that only overlap: it may leave some of what it falls on.
    nearly_whole = ("whole", "hand", "erased")
    sees = dict.fromkeys(nearly_whole, everything)
    names = {"Wrist": {"carpal"}, "Metacarpal": {"metacarpal"}}
    for region in DISCRIMINATIVE:
        # A region that falls on none of them may show any.
        sees[region] = names.get(falls_on.get(region) or "", everything)

    least = {}
    for name in (*(model.name for model in config.training.models), *config.reading.ensembles):
        seen = {region for model in config.members(name) for region in model.regions}
        if drawn.variant == "shortcut" and not seen.isdisjoint(nearly_whole):
            continue  # it sees the marker
        shown = set().union(*(sees[region] for region in seen))
        least[name] = phantom.bayes_floor(sorted(shown), drawn.variant)
    return least
