"""Figure 4: what networks have learned to say of single images, by the weight of the divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from ldlcam import LabelDistribution, gaussian_labels, plot_distributions

from boneage.data import splits
from boneage.data.samples import Samples
from boneage.experiments.networks import Network
from boneage.networks.bins import make_bins
from boneage.report.cases import evenly_by_age
from boneage.stages.evaluate import test_distributions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES, WEIGHTS = 4, 4


def spread(weights: tuple[float, ...]) -> tuple[float, ...]:
    """At most four of the weights, evenly over their order, the first and the last among them."""
    places = np.unique(np.linspace(0, len(weights) - 1, min(WEIGHTS, len(weights))).round())
    return tuple(weights[int(place)] for place in places)


def draw_learned(networks: dict[float, Network]) -> Figure:
    """A row for each weight, a column for each of a few test images, which ages are far apart.

    Args:
        networks: The trained network of each weight.
    """
    first = next(iter(networks.values()))
    samples = Samples.load(first.stages.prepared.folder)
    rows = evenly_by_age(samples.rows(splits.TEST), samples, IMAGES)
    bins, sigma = make_bins(first.config.bins), first.config.training.sigma
    logits = torch.cat([_logits(network, rows) for network in networks.values()])
    months = torch.from_numpy(samples.months[rows]).repeat(len(networks))
    labels = gaussian_labels(months, bins, sigma)
    titles = [
        f"lambda {weight:g}, {age:.0f} months"
        for weight in networks
        for age in samples.months[rows]
    ]
    predicted = LabelDistribution(logits.float(), bins)
    return plot_distributions(predicted, labels, months, titles=titles, columns=len(rows))


def _logits(network: Network, rows: np.ndarray) -> torch.Tensor:
    return test_distributions(network.config, network.told, rows)["as trained"].logits
