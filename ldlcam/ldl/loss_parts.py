"""What all losses between logits and values share: their arguments, and how they are reduced."""

import torch
from torch import Tensor
from torch.nn import functional

from ldlcam._check import check_positive, check_tensor
from ldlcam.ldl.bins import Bins, check_bins

DISTANCES = ("l1", "l2", "smooth_l1")
REDUCTIONS = ("mean", "sum", "none")


def check_sigma(sigma: float) -> None:
    """Check that the standard deviation of a loss's labels is a number above zero.

    Raises:
        TypeError: If it is not a number; a tensor would look as if it were trained.
        ValueError: If it is not finite and above zero.
    """
    if isinstance(sigma, Tensor):
        raise TypeError(f"sigma: expected a number, got {type(sigma).__name__}")
    check_positive("sigma", sigma)


def present_targets(
    logits: Tensor, target: Tensor, bins: Bins, sample_weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Targets (N,) without missing ones, and weights (N,) that are 0 for those that were.

    Both are in float32, or float64 if the logits are. A missing target is replaced before any
    arithmetic: masking its loss afterwards would leave NaN in the gradients.
    """
    check_bins(bins)
    check_tensor("logits", logits, "N K", "floating", K=len(bins))
    check_tensor("target", target, "N", "real", N=logits.shape[0])
    dtype = torch.promote_types(logits.dtype, torch.float32)
    target = target.to(dtype)  # first: what is finite in float64 may not be in float32
    present = target.isfinite()
    if sample_weight is None:
        weights = present.to(dtype)
    else:
        check_tensor("sample_weight", sample_weight, "N", "real", N=logits.shape[0])
        weights = torch.where(present, sample_weight, 0).to(dtype)
    return torch.where(present, target, bins.first), weights


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
