"""The expectation loss: the mean is to be right, and the distribution to look like its label."""

import math
from typing import NamedTuple

from torch import Tensor, nn

from ldlcam._check import check_choice, check_nonnegative
from ldlcam.ldl.bins import Bins, check_bins
from ldlcam.ldl.fused import row_terms
from ldlcam.ldl.labels import SCALES
from ldlcam.ldl.log_labels import ENDS, log_mass
from ldlcam.ldl.loss_parts import (
    DISTANCES,
    REDUCTIONS,
    Criterion,
    Targets,
    check_labels,
    check_sigma,
    present_targets,
    reduce,
    share_of_each,
)


class LossTerms(NamedTuple):
    """The parts of the expectation loss: `total` is `distance` + weight * `divergence`.

    Where each sample has a weight of its own, made of its sigma, `total` is the mean of such sums
    and not the sum of these means. Only `total` has a gradient.
    """

    distance: Tensor
    """Between expectation and target, in the unit of the bins (for `"l2"`, its square)."""
    divergence: Tensor
    """KL(label, prediction) in nats."""
    total: Tensor
    """The loss."""


class ExpectationLDLLoss(nn.Module):
    """Distance of the expectation from the target + weight * KL(label, prediction).

    The distance makes the predicted distribution's mean right; the divergence from a Gaussian
    label around the target, or from a label distribution that is the target, gives the
    distribution its shape. See `expectation_ldl_loss` for the arguments: this module keeps them.

    Args:
        bins: The bins, K of them, saved with the loss.
        sigma: Standard deviation of the labels, in the unit of the bins. It can be left out where
            each call gives those of its samples, or label distributions.
        weight: Weight of the divergence; by default `sigma`.
        distance: `"l1"`, `"l2"` or `"smooth_l1"`.
        ends: What happens to labels at the ends of the range, as in `gaussian_labels`.
        reverse: Whether to take KL(prediction, label) instead.
        label_scale: `"probabilities"`, or what labels sum to where figures were published:
            `"paper"` or `"code"`.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Raises:
        TypeError: If `bins` are not bins, or `sigma` is not a number: a tensor is not trained.
        ValueError: If an argument is none of these.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, ExpectationLDLLoss
        >>> bins = Bins(1, 240, unit="months")
        >>> criterion = ExpectationLDLLoss(bins, sigma=12.0)
        >>> logits = torch.zeros(3, 240, requires_grad=True)
        >>> ages = torch.tensor([36.0, 120.0, float("nan")])
        >>> criterion(logits, ages).backward()
        >>> criterion.terms(logits.detach(), ages)
        LossTerms(distance=tensor(42.5000), divergence=tensor(1.5813), total=tensor(61.4753))
        >>> criterion(logits.detach(), ages, sigma=torch.tensor([6.0, 20.0, 20.0]))
        tensor(59.9695)
    """

    def __init__(
        self,
        bins: Bins,
        sigma: float | None = None,
        weight: float | None = None,
        *,
        distance: str = "l1",
        ends: str = "renormalize",
        reverse: bool = False,
        label_scale: str = "probabilities",
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_bins(bins)
        check_sigma(sigma)
        _check_options(weight, distance, ends, reverse, label_scale, reduction)
        self.bins = bins
        self.sigma = sigma
        self.weight = weight
        self.distance = distance
        self.ends = ends
        self.reverse = reverse
        self.label_scale = label_scale
        self.reduction = reduction

    @classmethod
    def paper(
        cls, bins: Bins, sigma: float = 15.0, weight: float = 1.0, *, label_scale: str = "paper"
    ) -> "ExpectationLDLLoss":
        """The loss of Chen et al. with a `weight` that is the lambda of their Eq. 12.

        Args:
            bins: The bins; theirs are `Bins(1, 240, unit="months")`.
            sigma: Standard deviation of the labels, their delta.
            weight: Their lambda, for which they recommend 0.1 to 1.
            label_scale: `"paper"`: labels as Eq. 11 is printed; in the middle of the range this is
                a weight of sqrt(sigma) times lambda. `"code"`: as in the authors' code, where it
                is sqrt(2 pi) sigma times lambda.

        Returns:
            The loss, with a mean over the batch where Eqs. 9 and 10 have a sum.

        Example:
            >>> import torch
            >>> from ldlcam import Bins, ExpectationLDLLoss
            >>> bins = Bins(1, 240, unit="months")
            >>> theirs = ExpectationLDLLoss.paper(bins, weight=1.0)
            >>> ours = ExpectationLDLLoss(bins, sigma=15.0, weight=15.0**0.5)
            >>> logits = torch.zeros(1, 240, requires_grad=True)
            >>> gradients = [
            ...     torch.autograd.grad(loss(logits, torch.tensor([120.0])), logits)[0]
            ...     for loss in (theirs, ours)
            ... ]
            >>> torch.allclose(*gradients)
            True
        """
        return cls(bins, sigma, weight, label_scale=label_scale)

    @classmethod
    def dldl_v2(cls, bins: Bins, sigma: float = 2.0, weight: float = 1.0) -> "ExpectationLDLLoss":
        """The loss of DLDL-v2 with a `weight` that is the lambda of its code.

        Args:
            bins: The bins, K of them; theirs are `Bins(0, 100, unit="years")`.
            sigma: Standard deviation of the labels.
            weight: Their lambda. Their divergence is a mean over bins as well, so it counts K
                times less than one that is summed over them.

        Returns:
            The loss, with labels that sum to 1.

        Example:
            >>> from ldlcam import Bins, ExpectationLDLLoss
            >>> ExpectationLDLLoss.dldl_v2(Bins(0, 100, unit="years")).weight == 1 / 101
            True

        References:
            Gao et al., "Age Estimation Using Expectation of Label Distribution Learning",
            IJCAI 2018.
        """
        check_bins(bins)
        return cls(bins, sigma, weight / len(bins))

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        sample_weight: Tensor | None = None,
        sigma: float | Tensor | None = None,
    ) -> Tensor:
        """The loss: see `expectation_ldl_loss`. A `sigma` takes the place of the loss's own."""
        return self.terms(logits, target, sample_weight, sigma).total

    def terms(
        self,
        logits: Tensor,
        target: Tensor,
        sample_weight: Tensor | None = None,
        sigma: float | Tensor | None = None,
    ) -> LossTerms:
        """The loss and its two terms, each reduced as the loss is, for logging.

        Only `total` has a gradient; `ExpectationLoss` and `LabelDivergenceLoss` are the terms with
        gradients of their own.
        """
        return _loss_terms(
            logits,
            target,
            self.bins,
            self.sigma if sigma is None else sigma,
            self.weight,
            distance=self.distance,
            ends=self.ends,
            reverse=self.reverse,
            label_scale=self.label_scale,
            reduction=self.reduction,
            sample_weight=sample_weight,
        )

    def extra_repr(self) -> str:
        """The options, for `repr`."""
        sigma = None if self.sigma is None else f"{self.sigma:g}"
        weight = "sigma" if self.weight is None else f"{self.weight:g}"
        return (
            f"sigma={sigma}, weight={weight}, distance={self.distance!r}, "
            f"ends={self.ends!r}, reverse={self.reverse}, label_scale={self.label_scale!r}, "
            f"reduction={self.reduction!r}"
        )


def expectation_ldl_loss(
    logits: Tensor,
    target: Tensor,
    bins: Bins,
    sigma: float | Tensor | None = None,
    weight: float | None = None,
    *,
    distance: str = "l1",
    ends: str = "renormalize",
    reverse: bool = False,
    label_scale: str = "probabilities",
    reduction: str = "mean",
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Distance of the expectation from the target + weight * KL(label, prediction).

    Arithmetic is in float32, or float64 if the logits are, also under autocast. A missing target
    has weight 0; a batch without any present target has loss 0 and gradient 0. What has weight 0
    counts nothing, also where some of its logits are -inf. (Where one is NaN or inf, or all are
    -inf, its own gradient is NaN.)

    Args:
        logits: Logits (N, K), floating.
        target: Values (N,), real, in the unit of the bins; NaN or infinite is missing. Or label
            distributions (N, K), real: probabilities, or what is in proportion to them, as votes
            are. The distance is then that from their means. A row that sums to 0, or in which an
            entry is negative or not finite, is missing.
        bins: The bins, K of them.
        sigma: Standard deviation of the Gaussian labels of values, in the unit of the bins; a
            number, or (N,), real, for one per value. What is below a tenth of the narrowest bin
            counts as that; of NaN or infinite entries the sample is missing. None for label
            distributions.
        weight: Weight of the divergence, at least 0. Its unit is that of the distance per nat. By
            default `sigma`, each sample's own (for `"l2"`, its square), at which the two terms
            pull alike at an error of `sigma` and which makes the loss the same in months and in
            years, but for the unit itself. For label distributions a number `sigma` is this and
            nothing else; without any the weight has to be given.
        distance: `"l1"`: absolute error; `"l2"`: squared error; `"smooth_l1"`: e^2 / 2b for an
            error e below b and e - b / 2 above, b being the mean step between the bins.
        ends: What happens to labels at the ends of the range, as in `gaussian_labels`.
        reverse: Whether to take KL(prediction, label) instead, which asks for less probability
            where the label has none rather than for more where it has much. What a
            label distribution leaves out counts as next to impossible, 1e-26.
        label_scale: `"probabilities"`, for labels that sum to 1; or `"paper"` or `"code"`, for
            those of `published_gaussian_labels`, whose sum is a weight of its own. This needs
            values, one sigma, `ends="renormalize"` and no `reverse`.
        reduction: `"mean"`: over the present targets, weighted; `"sum"`; or `"none"`, (N,).
        sample_weight: Weights (N,), real, at least 0; by default 1 each.

    Returns:
        The loss in the unit of the bins (for `"l2"`, its square), a scalar or (N,), float32 or
        float64.

    Raises:
        TypeError: If an argument is not of the kind above.
        ValueError: If a shape is wrong or an option is none of these.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, expectation_ldl_loss
        >>> bins = Bins(1, 240, unit="months")
        >>> expectation_ldl_loss(torch.zeros(2, 240), torch.tensor([36.0, 120.0]), bins, 12.0)
        tensor(61.4753)
        >>> votes, stars = torch.tensor([[0, 1, 2, 7, 4]]), Bins(1, 5, unit="stars")
        >>> expectation_ldl_loss(torch.zeros(1, 5), votes, stars, weight=1.0)
        tensor(1.4384)

    References:
        Chen et al., arXiv:2006.00202, Eqs. 9, 10 and 12, with labels that sum to 1 and a mean
        over the batch instead of a sum. Eq. 11 as printed gives labels that sum to 3.87 at
        sigma = 15, so a lambda of theirs acts like a `weight` 3.87 times as large here:
        `ExpectationLDLLoss.paper` takes theirs, and `ExpectationLDLLoss.dldl_v2` that of DLDL-v2.
    """
    return _loss_terms(
        logits,
        target,
        bins,
        sigma,
        weight,
        distance=distance,
        ends=ends,
        reverse=reverse,
        label_scale=label_scale,
        reduction=reduction,
        sample_weight=sample_weight,
    ).total


def _loss_terms(
    logits: Tensor,
    target: Tensor,
    bins: Bins,
    sigma: float | Tensor | None,
    weight: float | None,
    *,
    distance: str,
    ends: str,
    reverse: bool,
    label_scale: str,
    reduction: str,
    sample_weight: Tensor | None,
) -> LossTerms:
    _check_options(weight, distance, ends, reverse, label_scale, reduction)
    targets = present_targets(logits, target, bins, sample_weight, sigma)
    check_labels(targets)
    shares = share_of_each(targets.weights, reduction)
    of_divergence = _weights(weight, targets, distance) * shares
    log_sums = None
    if label_scale != "probabilities":
        # Of labels G that sum to S, sum G (log G - log p) is S times that of G / S, plus S log S.
        log_sums = _log_sums(targets, bins, label_scale)
        of_divergence = of_divergence * log_sums.exp()
    criterion = Criterion(bins, targets.sigma, ends, reverse, distance)
    total, weighted, distances, divergences = row_terms(
        logits, targets.values, shares, of_divergence, criterion, targets.sigmas, targets.labels
    )
    if log_sums is not None:
        divergences = log_sums.exp() * (divergences + log_sums)
        total = total + (of_divergence * log_sums).sum()
        weighted = weighted + of_divergence * log_sums
    return LossTerms(
        reduce(distances, shares, reduction),
        reduce(divergences, shares, reduction),
        weighted if reduction == "none" else total,
    )


def _weights(weight: float | None, targets: Targets, distance: str) -> float | Tensor:
    """Weight of the divergence, by default made of the labels' sigma."""
    if weight is not None:
        return weight
    sigma = targets.sigma if targets.sigmas is None else targets.sigmas
    if sigma is None:
        raise ValueError("weight: expected a number where there is no sigma, got None")
    return sigma**2 if distance == "l2" else sigma


def _log_sums(targets: Targets, bins: Bins, label_scale: str) -> Tensor:
    """Logs (N,) of what labels at a published scale sum to."""
    sigma = targets.sigma
    if sigma is None or targets.labels is not None:
        raise ValueError(
            "label_scale: expected 'probabilities' where labels have their own sigmas, or are "
            f"distributions, got {label_scale!r}"
        )
    return log_mass(targets.values, bins, sigma) + math.log(SCALES[label_scale](sigma))


def _check_options(
    weight: float | None,
    distance: str,
    ends: str,
    reverse: bool,
    label_scale: str,
    reduction: str,
) -> None:
    if weight is not None:
        check_nonnegative("weight", weight)
    check_choice("distance", distance, DISTANCES)
    check_choice("ends", ends, ENDS)
    check_choice("label_scale", label_scale, ("probabilities", *SCALES))
    check_choice("reduction", reduction, REDUCTIONS)
    if label_scale != "probabilities" and (reverse or ends != "renormalize"):
        raise ValueError(
            f"label_scale: expected 'probabilities' with reverse={reverse} and ends={ends!r}, "
            f"got {label_scale!r}"
        )
