"""Losses between logits over bins and the values they are to predict."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ldlcam._check import check_choice, check_positive, check_tensor
from ldlcam._precision import upcast
from ldlcam.ldl.bins import Bins
from ldlcam.ldl.labels import ENDS, gaussian_log_labels
from ldlcam.ldl.prediction import expectation

DISTANCES = ("l1", "l2", "smooth_l1")
REDUCTIONS = ("mean", "sum", "none")


class LossTerms(NamedTuple):
    """The parts of the expectation loss: `total` is `distance` + weight * `divergence`."""

    distance: Tensor
    """Between expectation and target, in the unit of the bins (for `"l2"`, its square)."""
    divergence: Tensor
    """KL(label, prediction) in nats."""
    total: Tensor
    """The loss."""


class ExpectationLDLLoss(nn.Module):
    """Distance of the expectation from the target + weight * KL(label, prediction).

    The distance makes the predicted distribution's mean right; the divergence from a Gaussian
    label around the target gives the distribution its shape. See `expectation_ldl_loss` for the
    arguments: this module calls it and keeps them.

    Args:
        bins: The bins, K of them, saved with the loss.
        sigma: Standard deviation of the labels, in the unit of the bins.
        weight: Weight of the divergence; by default `sigma`.
        distance: `"l1"`, `"l2"` or `"smooth_l1"`.
        ends: What happens to labels at the ends of the range, as in `gaussian_labels`.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Raises:
        ValueError: If an argument is none of these.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, ExpectationLDLLoss
        >>> bins = Bins(1, 240, unit="months")
        >>> criterion = ExpectationLDLLoss(bins, sigma=15.0)
        >>> logits = torch.zeros(3, 240, requires_grad=True)
        >>> ages = torch.tensor([24.0, 120.0, float("nan")])
        >>> criterion(logits, ages).backward()
        >>> criterion.terms(logits.detach(), ages)
        LossTerms(distance=tensor(48.5000), divergence=tensor(1.4325), total=tensor(69.9871))
    """

    def __init__(
        self,
        bins: Bins,
        sigma: float,
        weight: float | None = None,
        *,
        distance: str = "l1",
        ends: str = "renormalize",
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        _check_options(sigma, weight, distance, ends, reduction)
        self.bins = bins
        self.sigma = sigma
        self.weight = weight
        self.distance = distance
        self.ends = ends
        self.reduction = reduction

    def forward(
        self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """The loss: see `expectation_ldl_loss`."""
        return self.terms(logits, target, sample_weight).total

    def terms(
        self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> LossTerms:
        """The loss and its two terms, each reduced as the loss is, for logging."""
        return _loss_terms(
            logits,
            target,
            self.bins,
            self.sigma,
            self.weight,
            distance=self.distance,
            ends=self.ends,
            reduction=self.reduction,
            sample_weight=sample_weight,
        )

    def extra_repr(self) -> str:
        """The options, for `repr`."""
        weight = "sigma" if self.weight is None else f"{self.weight:g}"
        return (
            f"sigma={self.sigma:g}, weight={weight}, distance={self.distance!r}, "
            f"ends={self.ends!r}, reduction={self.reduction!r}"
        )


def expectation_ldl_loss(
    logits: Tensor,
    target: Tensor,
    bins: Bins,
    sigma: float,
    weight: float | None = None,
    *,
    distance: str = "l1",
    ends: str = "renormalize",
    reduction: str = "mean",
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Distance of the expectation from the target + weight * KL(label, prediction).

    Arithmetic is in float32, or float64 if the logits are, also under autocast. A missing target
    has weight 0; a batch without any present target has loss 0 and gradient 0.

    Args:
        logits: Logits (N, K), floating.
        target: Values (N,), real, in the unit of the bins. NaN or infinite is missing.
        bins: The bins, K of them.
        sigma: Standard deviation of the Gaussian labels, in the unit of the bins.
        weight: Weight of the divergence, at least 0. Its unit is that of the distance per nat. By
            default `sigma` (for `"l2"`, its square), at which the two terms pull alike at an
            error of `sigma` and which makes the loss the same in months and in years, but for
            the unit itself.
        distance: `"l1"`: absolute error; `"l2"`: squared error; `"smooth_l1"`: e^2 / 2b for an
            error e below b and e - b / 2 above, b being the mean step between the bins.
        ends: What happens to labels at the ends of the range, as in `gaussian_labels`.
        reduction: `"mean"`: over the present targets, weighted; `"sum"`; or `"none"`, (N,).
        sample_weight: Weights (N,), real, at least 0; by default 1 each.

    Returns:
        The loss in the unit of the bins (for `"l2"`, its square), a scalar or (N,), float32 or
        float64.

    Raises:
        TypeError: If an argument is not a tensor of the kind above.
        ValueError: If a shape is wrong or an option is none of these.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, expectation_ldl_loss
        >>> bins = Bins(1, 240, unit="months")
        >>> expectation_ldl_loss(torch.zeros(2, 240), torch.tensor([24.0, 120.0]), bins, 15.0)
        tensor(69.9871)

    References:
        Chen et al., arXiv:2006.00202, Eqs. 9, 10 and 12, with labels that sum to 1 and a mean
        over the batch instead of a sum. Eq. 11 as printed gives labels that sum to 3.87 at
        sigma = 15, so a lambda of theirs is 3.87 times as large as a `weight` here. DLDL-v2
        averages the divergence over bins as well: its lambda of 1 with 101 bins is a `weight` of
        1 / 101.
    """
    return _loss_terms(
        logits,
        target,
        bins,
        sigma,
        weight,
        distance=distance,
        ends=ends,
        reduction=reduction,
        sample_weight=sample_weight,
    ).total


def _loss_terms(
    logits: Tensor,
    target: Tensor,
    bins: Bins,
    sigma: float,
    weight: float | None,
    *,
    distance: str,
    ends: str,
    reduction: str,
    sample_weight: Tensor | None,
) -> LossTerms:
    _check_options(sigma, weight, distance, ends, reduction)
    check_tensor("logits", logits, "N K", "floating", K=len(bins))
    check_tensor("target", target, "N", "real", N=logits.shape[0])
    logits = upcast(logits)
    log_labels, present = gaussian_log_labels(target.to(logits.dtype), bins, sigma, ends=ends)
    target = torch.where(present, target, bins.first).to(logits.dtype)
    weights = present.to(logits.dtype)
    if sample_weight is not None:
        check_tensor("sample_weight", sample_weight, "N", "real", N=logits.shape[0])
        weights = torch.where(present, sample_weight, 0).to(logits.dtype)

    distances = _distance(expectation(logits, bins), target, distance, bins)
    labels = log_labels.exp()
    divergences = (labels * (log_labels - logits.log_softmax(-1))).sum(-1)
    if weight is None:
        weight = sigma**2 if distance == "l2" else sigma
    totals = distances + weight * divergences
    return LossTerms(
        *(_reduce(term, weights, reduction) for term in (distances, divergences, totals))
    )


def _check_options(
    sigma: float, weight: float | None, distance: str, ends: str, reduction: str
) -> None:
    check_positive("sigma", sigma)
    if weight is not None and not 0 <= weight < math.inf:
        raise ValueError(f"weight: expected a finite number of at least 0, got {weight!r}")
    check_choice("distance", distance, DISTANCES)
    check_choice("ends", ends, ENDS)
    check_choice("reduction", reduction, REDUCTIONS)


def _distance(predicted: Tensor, target: Tensor, distance: str, bins: Bins) -> Tensor:
    if distance == "l1":
        return (predicted - target).abs()
    if distance == "l2":
        return (predicted - target).square()
    mean_step = (bins.last - bins.first) / (len(bins) - 1)
    return functional.smooth_l1_loss(predicted, target, beta=mean_step, reduction="none")


def _reduce(terms: Tensor, weights: Tensor, reduction: str) -> Tensor:
    terms = terms * weights
    if reduction == "none":
        return terms
    if reduction == "sum":
        return terms.sum()
    total = weights.sum()
    return terms.sum() / torch.where(total > 0, total, 1)
