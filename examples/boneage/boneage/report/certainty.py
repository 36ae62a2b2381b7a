"""How sure the models are, and how far that can be trusted: what the page shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ldlcam import LabelDistribution
from torch import Tensor

from boneage.config import Config
from boneage.data.samples import Samples
from boneage.networks.losses import make_labels
from boneage.report.distribution_figures import (
    distribution_figure,
    pit_figure,
    reliability_figure,
)
from boneage.report.drawing import Picture
from boneage.report.wording import age, sex
from boneage.stages.evaluate import test_distributions
from boneage.stages.plan import RunStages


@dataclass(frozen=True)
class Learned:
    """Distributions of a few images, beside what the model was to learn.

    Attributes:
        model: The model's name.
        labelled: Whether its loss has a label distribution.
        figures: By image, in words.
    """

    model: str
    labelled: bool
    figures: dict[str, Picture]


@dataclass(frozen=True)
class Trust:
    """One model's reliability and PIT figures, and its scores by state."""

    reliability: Picture
    pit: Picture
    scores: Mapping[str, Mapping[str, float]]


def learned(
    name: str, config: Config, stages: RunStages, samples: Samples, rows: np.ndarray
) -> Learned:
    """The named model's distributions of the given images; it has to tell distributions."""
    predicted = _last(test_distributions(config, stages.ages[name], rows))
    months = torch.from_numpy(samples.months[rows])
    labels = _labels(name, months, predicted, config)
    titles = [
        f"{samples.ids[row]}: {sex(samples.male[row])}, {age(float(samples.months[row]))}"
        for row in rows
    ]
    drawn = {
        title: distribution_figure(
            title,
            predicted[i : i + 1],
            None if labels is None else labels[i : i + 1],
            float(months[i]),
        )
        for i, title in enumerate(titles)
    }
    return Learned(name, labels is not None, drawn)


def trust(
    config: Config, stages: RunStages, truth: np.ndarray, rows: np.ndarray, metrics: dict[str, Any]
) -> dict[str, Trust]:
    """Figures and scores of all models that tell distributions, by name."""
    shown = {}
    for name, stage in stages.ages.items():
        states = test_distributions(config, stage, rows)
        if states:
            scores = metrics["ages"]["models"][name]
            conformal = scores["coverage90"] if config.reading.conformal else None
            shown[name] = Trust(
                reliability_figure(name, states, truth, conformal),
                pit_figure(name, states, truth),
                scores["distributions"],
            )
    return shown


def _labels(
    name: str, months: Tensor, predicted: LabelDistribution, config: Config
) -> Tensor | None:
    """The labels of a model, or of an ensemble whose members all have the same."""
    labels = [
        make_labels(model.loss, months, predicted.bins, config.training)
        for model in config.members(name)
    ]
    return None if any(each is None for each in labels) else labels[0]


def _last(states: Mapping[str, LabelDistribution]) -> LabelDistribution:
    return list(states.values())[-1]
