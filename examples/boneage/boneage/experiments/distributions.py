"""Figure 4: what networks have learned to say of single images, by the weight of the divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ldlcam import LabelDistribution, gaussian_labels, mean_crps, plot_distributions

from boneage.config import Config
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.experiments.networks import Network
from boneage.experiments.writing import csv_text, heading, markdown_row, picture
from boneage.networks.bins import make_bins
from boneage.networks.losses import make_loss
from boneage.report.cases import evenly_by_age
from boneage.report.wording import number
from boneage.stages.evaluate import provenance, test_distributions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES, WEIGHTS = 4, 4
_TOLD = ("mean", "sd", "mode", "highest")


def spread(weights: tuple[float, ...]) -> tuple[float, ...]:
    """At most four of the weights, evenly over their order, the first and the last among them."""
    places = np.unique(np.linspace(0, len(weights) - 1, min(WEIGHTS, len(weights))).round())
    return tuple(weights[int(place)] for place in places)


def learned(config: Config, networks: dict[float, Network]) -> dict[str, Any]:
    """What each network says of a few test images, which ages are far apart, and of all of them.

    Args:
        config: The configuration that the networks change.
        networks: The trained network of each weight.
    """
    samples = Samples.load(next(iter(networks.values())).stages.prepared.folder)
    rows = samples.rows(splits.TEST)
    shown = evenly_by_age(rows, samples, IMAGES)
    return {
        "name": "figure-4",
        "title": "Figure 4: learned distributions, by the weight of the divergence",
        **provenance(config, samples),
        "seed": config.experiments.seeds[0],
        "images": [{"id": samples.ids[row], "months": float(samples.months[row])} for row in shown],
        "networks": [
            {"lambda": weight, **_told(network, samples, rows, np.searchsorted(rows, shown))}
            for weight, network in networks.items()
        ],
    }


def _told(
    network: Network, samples: Samples, rows: np.ndarray, shown: np.ndarray
) -> dict[str, Any]:
    """Means over the test images, and the distributions of some of them."""
    predicted = test_distributions(network.config, network.told, rows)["as trained"]
    months = torch.from_numpy(samples.months[rows])
    divergence = make_loss("kl", predicted.bins, network.config.training)
    images = [predicted[int(place)] for place in shown]
    return {
        "mae": float((predicted.mean - months).abs().mean()),
        "sd": float(predicted.stddev.mean()),
        "highest": float(predicted.probs.amax(-1).mean()),
        "crps": float(mean_crps(predicted, months)),
        "divergence": float(divergence(predicted.logits, months)),
        "images": [
            {
                "mean": float(one.mean),
                "sd": float(one.stddev),
                "mode": float(one.mode),
                "highest": float(one.probs.max()),
                "probs": " ".join(f"{share:.3g}" for share in one.probs.tolist()),
            }
            for one in images
        ],
    }


def learned_page(results: dict[str, Any]) -> str:
    """The page of Figure 4, as Markdown."""
    images, networks = results["images"], results["networks"]
    sigma = results["configuration"]["training"]["sigma"]
    lines = [
        *heading(results),
        f"{results['data']['name']}, {results['data']['parts']['test']} test images; networks that "
        f"see the hand, from seed {results['seed']}. Drawn: {len(images)} of the images, each in a "
        "column; its distribution, the label, and the true age.",
        "",
        picture(results),
        "",
        f"Means over all test images. The labels have an sd of {sigma:g} months; the divergence is "
        "that of the labels from what is said, in nats.",
        "",
        markdown_row("lambda", "MAE", "sd", "highest probability of a month", "divergence", "CRPS"),
        "|---:" * 6 + "|",
    ]
    for one in networks:
        told = (number(one[name], 2) for name in ("mae", "sd", "highest", "divergence", "crps"))
        lines.append(markdown_row(f"{one['lambda']:g}", *told))
    titles = [f"{image['id']}, {image['months']:g} months" for image in images]
    lines += [
        "",
        "What is said of the drawn ones: the expectation and the sd in months.",
        "",
        markdown_row("lambda", *titles),
        "|---:" * (1 + len(images)) + "|",
    ]
    for one in networks:
        told = (f"{number(own['mean'])} ± {number(own['sd'])}" for own in one["images"])
        lines.append(markdown_row(f"{one['lambda']:g}", *told))
    return "\n".join(lines) + "\n"


def learned_csv(results: dict[str, Any]) -> str:
    """One line a drawn image and weight."""
    rows = []
    for one in results["networks"]:
        for image, own in zip(results["images"], one["images"], strict=True):
            rows.append((one["lambda"], image["id"], image["months"], *map(own.get, _TOLD)))
    return csv_text(("lambda", "id", "months", *_TOLD), rows)


def draw_learned(results: dict[str, Any]) -> Figure:
    """A row for each weight, a column for each image."""
    images, networks = results["images"], results["networks"]
    configuration = Config.model_validate(results["configuration"])
    bins = make_bins(configuration.bins)
    probs = [
        [float(share) for share in own["probs"].split()]
        for one in networks
        for own in one["images"]
    ]
    months = torch.tensor([image["months"] for image in images]).repeat(len(networks))
    labels = gaussian_labels(months, bins, configuration.training.sigma)
    titles = [
        f"lambda {one['lambda']:g}, {image['months']:.0f} months"
        for one in networks
        for image in images
    ]
    predicted = LabelDistribution(torch.tensor(probs).log(), bins)
    return plot_distributions(predicted, labels, months, titles=titles, columns=len(images))
