"""Relatives of the expectation loss, each with the same call: logits, target, sample weights."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ldlcam._check import check_choice, check_nonnegative
from ldlcam._precision import upcast
from ldlcam.ldl.bins import Bins, check_bins
from ldlcam.ldl.fused import row_terms
from ldlcam.ldl.labels import one_hot_labels, two_hot_labels
from ldlcam.ldl.log_labels import ENDS
from ldlcam.ldl.loss_parts import (
    DISTANCES,
    REDUCTIONS,
    Criterion,
    Targets,
    check_labels,
    check_sigma,
    distance_between,
    present_targets,
    reduce,
    share_of_each,
)
from ldlcam.ldl.prediction import LabelDistribution, expectation


class _Relative(nn.Module):
    """A loss with a value for each sample, reduced over those that are present."""

    def __init__(self, bins: Bins, reduction: str) -> None:
        super().__init__()
        check_bins(bins)
        check_choice("reduction", reduction, REDUCTIONS)
        self.bins = bins
        self.reduction = reduction

    def forward(
        self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """The loss; its arguments are those of `expectation_ldl_loss`.

        Args:
            logits: Logits (N, K), floating.
            target: Values (N,), real, in the unit of the bins; or label distributions (N, K),
                real. What is missing weighs nothing.
            sample_weight: Weights (N,), real, at least 0; by default 1 each.

        Returns:
            A scalar or, with `reduction="none"`, (N,); float64 for float64 logits and float32
            otherwise.

        Raises:
            TypeError: If an argument is not a tensor of the kind above.
            ValueError: If a shape is wrong.
        """
        targets = present_targets(logits, target, self.bins, sample_weight)
        return self._reduced(logits, targets)

    def _reduced(self, logits: Tensor, targets: Targets) -> Tensor:
        shares = share_of_each(targets.weights, self.reduction)
        return reduce(self._each(logits, targets), shares, self.reduction)

    def _each(self, logits: Tensor, targets: Targets) -> Tensor:
        """The loss (N,) of each sample with a target."""
        raise NotImplementedError


class ExpectationLoss(_Relative):
    """Distance of the expectation from the target, in the unit of the bins; no label distribution.

    The distribution's shape is left open: what it says about the spread is worth nothing. Of a
    target that is a label distribution, only the mean counts.

    Args:
        bins: The bins, K of them.
        distance: `"l1"`, `"l2"` or `"smooth_l1"`, as in `expectation_ldl_loss`.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Raises:
        TypeError: If `bins` are not bins.
        ValueError: If an argument is none of these.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, ExpectationLoss
        >>> ExpectationLoss(Bins(1, 240))(torch.zeros(2, 240), torch.tensor([24.0, 120.0]))
        tensor(48.5000)
    """

    def __init__(self, bins: Bins, *, distance: str = "l1", reduction: str = "mean") -> None:
        check_choice("distance", distance, DISTANCES)
        super().__init__(bins, reduction)
        self.distance = distance

    def _each(self, logits: Tensor, targets: Targets) -> Tensor:
        predicted = expectation(logits, self.bins)
        return distance_between(predicted, targets.values, self.distance, self.bins)


class LabelDivergenceLoss(_Relative):
    """KL(label, prediction) alone, in nats: the distribution is to look like its label.

    The label of a value is a Gaussian; of a target that is a label distribution, it is that.

    Args:
        bins: The bins, K of them.
        sigma: Standard deviation of the labels of values, in the unit of the bins. It can be left
            out where each call gives those of its samples, or label distributions.
        ends: What happens to labels at the ends of the range, as in `gaussian_labels`.
        reverse: Whether to take KL(prediction, label) instead.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Raises:
        TypeError: If `bins` are not bins, or `sigma` is not a number: a tensor is not trained.
        ValueError: If an argument is none of these.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDivergenceLoss
        >>> criterion = LabelDivergenceLoss(Bins(1, 240), sigma=15.0)
        >>> criterion(torch.zeros(2, 240), torch.tensor([24.0, 120.0]))
        tensor(1.4325)
        >>> votes = torch.tensor([[0, 1, 2, 7, 4]])
        >>> LabelDivergenceLoss(Bins(1, 5, unit="stars"))(torch.zeros(1, 5), votes)
        tensor(0.4384)

    References:
        Gao et al., "Deep Label Distribution Learning with Label Ambiguity", IEEE TIP 2017.
    """

    def __init__(
        self,
        bins: Bins,
        sigma: float | None = None,
        *,
        ends: str = "renormalize",
        reverse: bool = False,
        reduction: str = "mean",
    ) -> None:
        check_sigma(sigma)
        check_choice("ends", ends, ENDS)
        super().__init__(bins, reduction)
        self.sigma = sigma
        self.ends = ends
        self.reverse = reverse

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        sample_weight: Tensor | None = None,
        sigma: float | Tensor | None = None,
    ) -> Tensor:
        """The loss; its arguments are those of `expectation_ldl_loss`.

        Args:
            logits: Logits (N, K), floating.
            target: Values (N,), real, in the unit of the bins; or label distributions (N, K),
                real. What is missing weighs nothing.
            sample_weight: Weights (N,), real, at least 0; by default 1 each.
            sigma: Standard deviation of the labels of values, a number or (N,), instead of the
                loss's own.

        Returns:
            A scalar or, with `reduction="none"`, (N,); float64 for float64 logits and float32
            otherwise.

        Raises:
            TypeError: If an argument is not of the kind above.
            ValueError: If a shape is wrong, or values have no sigma.
        """
        sigma = self.sigma if sigma is None else sigma
        targets = present_targets(logits, target, self.bins, sample_weight, sigma)
        check_labels(targets)
        return self._reduced(logits, targets)

    def _each(self, logits: Tensor, targets: Targets) -> Tensor:
        criterion = Criterion(self.bins, targets.sigma, self.ends, self.reverse)
        values, sigmas, labels = targets.values, targets.sigmas, targets.labels
        nothing, all_of_it = torch.zeros_like(values), torch.ones_like(values)
        terms = row_terms(logits, values, nothing, all_of_it, criterion, sigmas, labels)
        return terms.weighted


class CRPSLoss(_Relative):
    """Continuous ranked probability score, in the unit of the bins: squared gaps between cdfs.

    A proper score: it asks for the right spread as well as the right place, without a label to
    imitate. For a prediction that is all in one bin it is the absolute error. In the literature on
    bins it is also called the squared-CDF or squared earth mover's distance: for a target that is
    a label distribution, the integral of the squared gap between the two cdfs.

    Args:
        bins: The bins, K of them.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Raises:
        TypeError: If `bins` are not bins.
        ValueError: If `reduction` is none of these.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, CRPSLoss
        >>> CRPSLoss(Bins(1, 240))(torch.zeros(2, 240), torch.tensor([24.0, 120.0]))
        tensor(39.4007)

    References:
        Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA
        2007; Hou et al., "Squared Earth Mover's Distance-based Loss", arXiv:1611.05916, which is
        the same for equal bins and values at their centres.
    """

    def __init__(self, bins: Bins, *, reduction: str = "mean") -> None:
        super().__init__(bins, reduction)

    def _each(self, logits: Tensor, targets: Targets) -> Tensor:
        predicted = LabelDistribution(logits, self.bins)
        if targets.labels is None:
            return predicted.crps(targets.values)
        steps = self.bins.centers_as(predicted.probs.dtype, logits.device).diff()
        gaps = (predicted.probs - targets.labels).cumsum(-1)[:, :-1]
        return (gaps.square() * steps).sum(-1)


class BinCrossEntropyLoss(_Relative):
    """Cross-entropy with the bin of the target, in nats: a classifier's loss, blind to order.

    For a target that is a label distribution, it is the cross-entropy with that.

    Args:
        bins: The bins, K of them.
        label: `"one_hot"`: all in the bin of the target; `"two_hot"`: interpolated between the
            two centres around it.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Raises:
        TypeError: If `bins` are not bins.
        ValueError: If an argument is none of these.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, BinCrossEntropyLoss
        >>> BinCrossEntropyLoss(Bins(1, 240))(torch.zeros(2, 240), torch.tensor([24.0, 120.0]))
        tensor(5.4806)
    """

    def __init__(self, bins: Bins, *, label: str = "one_hot", reduction: str = "mean") -> None:
        check_choice("label", label, ("one_hot", "two_hot"))
        super().__init__(bins, reduction)
        self.label = label

    def _each(self, logits: Tensor, targets: Targets) -> Tensor:
        labels = targets.labels
        if labels is None:
            make = one_hot_labels if self.label == "one_hot" else two_hot_labels
            labels = make(targets.values, self.bins)
        return _cross_entropy(labels, upcast(logits).log_softmax(-1))


class MeanVarianceTerms(NamedTuple):
    """The parts of the mean-variance loss: `total` is their weighted sum."""

    cross_entropy: Tensor
    """With the bin of the target, or its label distribution, in nats."""
    mean: Tensor
    """Half the squared error of the expectation, in the squared unit of the bins."""
    variance: Tensor
    """The prediction's variance, in the squared unit of the bins."""
    total: Tensor
    """The loss."""


class MeanVarianceLoss(_Relative):
    """Cross-entropy + weighted squared error of the mean + weighted variance of the prediction.

    For a target that is a label distribution, the cross-entropy and the mean are of that.

    Args:
        bins: The bins, K of them.
        mean_weight: Weight of half the squared error of the expectation, in nats per squared unit
            of the bins.
        variance_weight: Weight of the variance, in the same unit. The published weights are for
            years: in months, divide both by 144.
        reduction: `"mean"`, `"sum"` or `"none"`.

    Raises:
        TypeError: If `bins` are not bins.
        ValueError: If a weight is negative or not finite, or `reduction` is none of these.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, MeanVarianceLoss
        >>> criterion = MeanVarianceLoss(Bins(0, 99, unit="years"))
        >>> criterion.terms(torch.zeros(1, 100), torch.tensor([40.0])).total
        tensor(55.2927)

    References:
        Pan et al., "Mean-Variance Loss for Deep Age Estimation from a Face", CVPR 2018.
    """

    def __init__(
        self,
        bins: Bins,
        mean_weight: float = 0.2,
        variance_weight: float = 0.05,
        *,
        reduction: str = "mean",
    ) -> None:
        check_nonnegative("mean_weight", mean_weight)
        check_nonnegative("variance_weight", variance_weight)
        super().__init__(bins, reduction)
        self.mean_weight = mean_weight
        self.variance_weight = variance_weight

    def terms(
        self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> MeanVarianceTerms:
        """The loss and its parts, each reduced as the loss is, for logging."""
        targets = present_targets(logits, target, self.bins, sample_weight)
        shares = share_of_each(targets.weights, self.reduction)
        terms = self._terms(logits, targets)
        return MeanVarianceTerms(*(reduce(term, shares, self.reduction) for term in terms))

    def _each(self, logits: Tensor, targets: Targets) -> Tensor:
        return self._terms(logits, targets).total

    def _terms(self, logits: Tensor, targets: Targets) -> MeanVarianceTerms:
        predicted = LabelDistribution(logits, self.bins)
        labels = targets.labels
        if labels is None:
            labels = one_hot_labels(targets.values, self.bins)
        cross_entropy = _cross_entropy(labels, predicted.logits)
        mean = (predicted.mean - targets.values).square() / 2
        variance = predicted.variance
        total = cross_entropy + self.mean_weight * mean + self.variance_weight * variance
        return MeanVarianceTerms(cross_entropy, mean, variance, total)


def _cross_entropy(labels: Tensor, log_probs: Tensor) -> Tensor:
    """Cross-entropy (N,); a bin that the label leaves out counts nothing, also at log 0."""
    counts = (labels > 0) | log_probs.isfinite()
    return -(labels * torch.where(counts, log_probs, 0)).sum(-1)
