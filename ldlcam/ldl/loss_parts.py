"""What all losses share: the targets that predictions are judged by, and how losses are reduced."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ldlcam._check import check_positive, check_tensor
from ldlcam.ldl.bins import Bins, check_bins

DISTANCES = ("l1", "l2", "smooth_l1")
REDUCTIONS = ("mean", "sum", "none")

# In steps of the narrowest bin. A narrower label would be the nearest bin as well, but without any
# weight by default, without bound in reverse, and at the mercy of rounding.
_LEAST_SIGMA = 0.1


class Criterion(NamedTuple):
    """What each row is judged by: a distance, and the divergence from its label."""

    bins: Bins
    sigma: float | None = None
    """Standard deviation of all labels; None if each row has its own, or a label."""
    ends: str = "renormalize"
    reverse: bool = False
    distance: str = "l1"


class Targets(NamedTuple):
    """What predictions are judged by: all finite, in float32, or float64 if the logits are."""

    values: Tensor
    """(N,), in the unit of the bins; of label distributions, their means."""
    weights: Tensor
    """(N,), 0 for what is missing."""
    sigma: float | None
    """Standard deviation of all values' labels, if they have one."""
    sigmas: Tensor | None
    """Standard deviation (N,) of each value's own label, not too narrow."""
    labels: Tensor | None
    """Label distributions (N, K), each row summing to 1; None if values were given."""


def check_sigma(sigma: float | None) -> None:
    """Check that the standard deviation of a loss's labels is a number above zero, or left out.

    Raises:
        TypeError: If it is not a number; a tensor would look as if it were trained.
        ValueError: If it is not finite and above zero.
    """
    if isinstance(sigma, Tensor):
        raise TypeError(
            f"sigma: expected a number, got {type(sigma).__name__}; "
            "where each sample has its own, they come with the targets"
        )
    if sigma is not None:
        check_positive("sigma", sigma)


def present_targets(
    logits: Tensor,
    target: Tensor,
    bins: Bins,
    sample_weight: Tensor | None,
    sigma: float | Tensor | None = None,
) -> Targets:
    """The targets, with weight 0 for missing ones.

    These are replaced before any arithmetic: masking their losses afterwards would leave NaN in
    the gradients.
    """
    check_bins(bins)
    check_tensor("logits", logits, "N K", "floating", K=len(bins))
    count = logits.shape[0]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    labels = None
    if isinstance(target, Tensor) and target.ndim == 2 and target.shape[1] != 1:
        check_tensor("target", target, "N K", "real", N=count, K=len(bins))
        labels, values, present = _normalized(target.to(dtype), bins)
    else:
        check_tensor("target", target, "N", "real", N=count)
        values = target.to(dtype)  # first: what is finite in float64 may not be in float32
        present = values.isfinite()
    sigmas, least = None, _LEAST_SIGMA * bins.narrowest
    if not isinstance(sigma, Tensor):
        check_sigma(sigma)
        sigma = sigma if sigma is None or labels is not None else max(sigma, least)
    elif labels is not None:
        raise ValueError("sigma: expected a number or none for label distributions, got a tensor")
    else:
        check_tensor("sigma", sigma, "N", "real", N=count)
        sigmas = sigma.to(dtype)
        present = present & sigmas.isfinite()
        sigma, sigmas = None, torch.where(present, sigmas, 1).clamp(min=least)
    if sample_weight is None:
        weights = present.to(dtype)
    else:
        check_tensor("sample_weight", sample_weight, "N", "real", N=count)
        weights = torch.where(present, sample_weight, 0).to(dtype)
    values = torch.where(present, values, bins.first)
    return Targets(values, weights, sigma, sigmas, labels)


def check_labels(targets: Targets) -> None:
    """Check that targets have labels.

    Raises:
        ValueError: If they are values without a standard deviation.
    """
    if targets.sigma is None and targets.sigmas is None and targets.labels is None:
        raise ValueError(
            "sigma: expected a number, or one for each value, got None; only label distributions "
            "need none"
        )


def _normalized(labels: Tensor, bins: Bins) -> tuple[Tensor, Tensor, Tensor]:
    """Label distributions (N, K) of votes, or of what they were; means and presence (N,)."""
    sums = labels.sum(-1)
    present = (labels >= 0).all(-1) & (sums > 0) & sums.isfinite()
    known = present[:, None]
    labels = torch.where(known, labels, 1) / torch.where(present, sums, len(bins))[:, None]
    centers = bins.centers_as(labels.dtype, labels.device)
    # As a product of matrices it would be in half precision under autocast.
    return labels, (labels * centers).sum(-1), present


def distance_between(predicted: Tensor, target: Tensor, distance: str, bins: Bins) -> Tensor:
    """Distance (N,) of predicted values from their targets, by name."""
    if distance == "l1":
        return (predicted - target).abs()
    if distance == "l2":
        return (predicted - target).square()
    return functional.smooth_l1_loss(predicted, target, beta=mean_step(bins), reduction="none")


def distance_slope(errors: Tensor, distance: str, bins: Bins) -> Tensor:
    """Derivative (N,) of `distance_between` by the predicted values, at errors (N,)."""
    if distance == "l1":
        return errors.sign()
    if distance == "l2":
        return 2 * errors
    return (errors / mean_step(bins)).clamp(-1, 1)


def mean_step(bins: Bins) -> float:
    """Mean distance between neighbouring centres."""
    return (bins.last - bins.first) / (len(bins) - 1)


def share_of_each(weights: Tensor, reduction: str) -> Tensor:
    """What each loss is multiplied by (N,): its weight, for a mean by the sum of all; 0 without."""
    if reduction != "mean":
        return weights
    total = weights.sum()
    return weights / torch.where(total > 0, total, 1)


def weighed(losses: Tensor, weights: Tensor) -> Tensor:
    """Losses (N,) times their weights (N,); one of weight 0 counts nothing, also if infinite."""
    return torch.where(weights != 0, losses * weights, 0)


def reduce(losses: Tensor, shares: Tensor, reduction: str) -> Tensor:
    """Losses (N,) times their shares (N,), for `"none"`, or the sum of that."""
    losses = weighed(losses, shares)
    return losses if reduction == "none" else losses.sum()
