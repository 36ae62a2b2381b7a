"""How alike two label distributions are: the six measures of label-distribution learning."""

from typing import NamedTuple

import torch
from torch import Tensor

from ldlcam._check import check_tensor
from ldlcam._precision import upcast
from ldlcam.ldl.metrics import root


class DistributionSimilarity(NamedTuple):
    """Six measures, each a mean over samples; the last two are higher for more alike ones."""

    chebyshev: Tensor
    """Largest gap between two probabilities."""
    clark: Tensor
    """Root of the sum of squared relative gaps."""
    canberra: Tensor
    """Sum of relative gaps: each over the sum of the two probabilities."""
    kl: Tensor
    """KL(label, prediction), in nats."""
    cosine: Tensor
    """Cosine of the angle between the two."""
    intersection: Tensor
    """Sum of the smaller of the two probabilities."""


def distribution_similarity(probs: Tensor, labels: Tensor) -> DistributionSimilarity:
    """The six measures of label-distribution learning, each a mean over samples.

    Args:
        probs: Predicted probabilities (N, K), each row summing to 1.
        labels: Label distributions (N, K), each row summing to 1; a row of zeros is missing and
            left out.

    Returns:
        The six means, float64 if an argument is and float32 otherwise; NaN without any label. A
        relative gap between two zeros is 0. The divergence is infinite where a label has
        probability and the prediction has none.

    Raises:
        TypeError: If an argument is not a floating tensor.
        ValueError: If a shape is wrong.

    Example:
        >>> import torch
        >>> from ldlcam import distribution_similarity
        >>> probs, labels = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.5, 0.25, 0.25]])
        >>> distribution_similarity(probs, labels).intersection
        tensor(0.7500)

    References:
        Geng, "Label Distribution Learning", IEEE TKDE 2016, Table 1.
    """
    means, _ = similarity_of_rows(probs, labels)
    return DistributionSimilarity(*means.unbind())


def similarity_of_rows(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The six means (6,), and which rows have a label (N,)."""
    check_tensor("probs", probs, "N K", "floating")
    check_tensor("labels", labels, "N K", "floating", N=probs.shape[0], K=probs.shape[1])
    probs, labels = upcast(probs), upcast(labels)
    present = labels.sum(-1) > 0
    gaps, sums = (probs - labels).abs(), probs + labels
    relative = gaps / torch.where(sums > 0, sums, 1)
    lengths = root(probs.square().sum(-1)) * root(labels.square().sum(-1))
    products = (probs * labels).sum(-1)
    # Where both are 0 the term is, and so has to be its gradient.
    believed = probs.masked_fill(sums == 0, 1)
    rows = torch.stack(
        (
            gaps.amax(-1),
            root(relative.square().sum(-1)),
            relative.sum(-1),
            (torch.xlogy(labels, labels) - torch.xlogy(labels, believed)).sum(-1),
            products / torch.where(lengths > 0, lengths, 1),
            torch.minimum(probs, labels).sum(-1),
        )
    )
    return rows.where(present, 0).sum(-1) / present.sum(), present
