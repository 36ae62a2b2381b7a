"""The losses that an age network can be trained with, by their names in the configuration."""

from __future__ import annotations

from collections.abc import Callable

from ldlcam import (
    BinCrossEntropyLoss,
    Bins,
    CRPSLoss,
    ExpectationLDLLoss,
    ExpectationLoss,
    LabelDivergenceLoss,
    MeanVarianceLoss,
    gaussian_labels,
)
from torch import Tensor, nn

from boneage.config import Training

_OF_LABELS = ("kl", "ldl")
_LOSSES: dict[str, Callable[[Bins, Training], nn.Module]] = {
    "l1": lambda bins, own: nn.L1Loss(),
    "l2": lambda bins, own: nn.MSELoss(),
    "cross-entropy": lambda bins, own: BinCrossEntropyLoss(bins),
    "kl": lambda bins, own: LabelDivergenceLoss(bins, own.sigma),
    "mean-variance": lambda bins, own: MeanVarianceLoss(bins, own.mean_weight, own.variance_weight),
    "crps": lambda bins, own: CRPSLoss(bins),
    "expectation": lambda bins, own: ExpectationLoss(bins),
    "ldl": lambda bins, own: ExpectationLDLLoss(bins, own.sigma, own.weight),
}


def make_loss(name: str, bins: Bins, config: Training) -> nn.Module:
    """The loss of that name, which takes outputs and ages (N,) in months.

    Args:
        name: One of `boneage.config.LOSSES`.
        bins: The bins of the network's distribution.
        config: The settings of the losses that have any.

    Returns:
        The loss; outputs are ages (N,) for those in `SCALAR_LOSSES`, and else logits (N, K).
    """
    return _LOSSES[name](bins, config)


def make_labels(name: str, months: Tensor, bins: Bins, config: Training) -> Tensor | None:
    """The label distributions (N, K) that a network is to learn with the loss of that name.

    Args:
        name: One of `boneage.config.LOSSES`.
        months: True ages (N,).
        bins: The K bins of the distributions.
        config: The settings of the losses.

    Returns:
        Probabilities, or None for a loss that has the age itself as its target.
    """
    return gaussian_labels(months, bins, config.sigma) if name in _OF_LABELS else None
