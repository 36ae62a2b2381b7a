"""Intervals that hold as many values as they say, whatever the network believes of itself."""

import math

import torch
from torch import Tensor

from ldlcam._check import check_choice, check_count, check_open_fraction, check_tensor
from ldlcam.ldl.fitted import Fitted
from ldlcam.ldl.prediction import Interval, LabelDistribution, check_distribution

SCORES = ("quantile", "scaled", "absolute")


class ConformalIntervals(Fitted):
    """Prediction intervals whose coverage is guaranteed, calibrated on data of their own.

    Of new values drawn like the calibration data, at least the level lies inside on average, and
    with n calibration values at most 1 / (n + 1) more if no two scores are equal. Neither the
    network nor its probabilities need be right; the better they are, the shorter the intervals.
    Calibration data must be used for nothing else, and several images of one person count as one:
    `fit` takes whom each shows, as `cluster`.

    With groups, such as sexes or bands of age, each group has a margin of its own, and the
    guarantee holds within each. Groups must be known when predicting: the true age is not, but the
    predicted one is.

    The margins (groups,) are a buffer, saved with the module. Before `fit`, for a group with too
    few calibration values (fewer than level / (1 - level): 9 at 90%), and for a group that is not
    0 to groups - 1, intervals are unbounded.

    Args:
        level: Share of values inside, in (0, 1).
        score: How far a value is from a prediction. `"quantile"`: how far outside of the
            prediction's own central interval, which keeps its skew; `"scaled"`: distance from the
            mean, in standard deviations of the prediction; `"absolute"`: distance from the mean,
            so that all intervals of a group are equally long.
        groups: Number of groups.

    Raises:
        ValueError: If an argument is none of these.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, ConformalIntervals, LabelDistribution
        >>> bins = Bins(1, 240, unit="months")
        >>> def predict(ages):  # errors of 10 months, and a network that thinks they are 5
        ...     means = (ages + 10 * torch.randn(len(ages)))[:, None]
        ...     return LabelDistribution(-((bins.centers - means) / 5).square() / 2, bins)
        >>> ages = 60 + 120 * torch.rand(1000)
        >>> intervals = ConformalIntervals(0.9).fit(predict(ages), ages)
        >>> low, high = intervals(predict(ages))
        >>> 0.85 < ((low <= ages) & (ages <= high)).float().mean() < 0.95
        tensor(True)

    References:
        Romano et al., "Conformalized Quantile Regression", NeurIPS 2019, for `"quantile"`; Vovk et
        al., "Mondrian Confidence Machine", 2003, for groups.
    """

    margins: Tensor

    def __init__(self, level: float, *, score: str = "quantile", groups: int = 1) -> None:
        super().__init__()
        check_open_fraction("level", level)
        check_choice("score", score, SCORES)
        check_count("groups", groups)
        self.level = level
        self.score = score
        self.groups = groups
        self.register_fitted("margins", torch.inf, (groups,))

    def fit(
        self,
        predicted: LabelDistribution,
        target: Tensor,
        group: Tensor | None = None,
        cluster: Tensor | None = None,
    ) -> "ConformalIntervals":
        """Find the margins.

        Args:
            predicted: Predictions (N,) of data that nothing was trained or chosen on.
            target: True values (N,), real, in the unit of the bins. NaN or infinite is missing.
            group: Group of each (N,), integer, 0 to groups - 1; needed if there are several.
            cluster: What each belongs to (N,), integer, such as the person that several images
                show. Of those of one cluster, one is drawn for each group, always the same; the
                guarantee is then for an image of a new person. By default each is alone.

        Returns:
            This module.

        Raises:
            TypeError: If an argument is not of the kind above.
            ValueError: If a shape is wrong, or `group` is missing where there are several.
        """
        (count,) = _one_axis(predicted)
        check_tensor("target", target, "N", "real", N=count)
        group = self._group(group, predicted)
        scores = self._scores(predicted, target).detach()
        present = target.isfinite() & scores.isfinite()
        if cluster is not None:
            check_tensor("cluster", cluster, "N", "integer", N=count)
        for index in range(self.groups):
            counted = (present & (group == index)).nonzero()[:, 0]
            if cluster is not None:
                counted = counted[_one_of_each(cluster.to(counted.device)[counted])]
            chosen = scores[counted].sort().values
            # Of n + 1 values that could come in any order, this many are not above the margin.
            rank = math.ceil((len(chosen) + 1) * self.level - 1e-9)
            self.margins[index] = chosen[rank - 1] if rank <= len(chosen) else torch.inf
        return self

    def forward(self, predicted: LabelDistribution, group: Tensor | None = None) -> Interval:
        """Intervals of new predictions.

        Args:
            predicted: Predictions (N,).
            group: Group of each (N,), integer; needed if there are several.

        Returns:
            `low` and `high`, (N,), in the unit of the bins; they may reach beyond the bins.

        Raises:
            TypeError: If an argument is not of the kind above.
            ValueError: If a shape is wrong, or `group` is missing where there are several.
        """
        _one_axis(predicted)
        group = self._group(group, predicted)
        known = (group >= 0) & (group < self.groups)
        margins = self.margins.to(group.device)[group.clamp(0, self.groups - 1)]
        low, high, unit = self._from(predicted)
        reach = torch.where(known, margins, torch.inf) * unit
        # A value that lay right at the margin must not fall outside by a rounding.
        reach = reach + 4 * torch.finfo(reach.dtype).eps * reach.abs()
        middle, dtype = (low + high) / 2, predicted.logits.dtype
        return Interval(
            _round_away(torch.minimum(low - reach, middle), -torch.inf, dtype),
            _round_away(torch.maximum(high + reach, middle), torch.inf, dtype),
        )

    def _scores(self, predicted: LabelDistribution, target: Tensor) -> Tensor:
        """How far outside of what the prediction says by itself, in its unit."""
        low, high, unit = self._from(predicted)
        target = target.to(low)
        return torch.maximum(low - target, target - high) / unit

    def _from(self, predicted: LabelDistribution) -> tuple[Tensor, Tensor, Tensor]:
        """Ends of what a prediction says by itself, and the unit of its margin, in float64."""
        if self.score == "quantile":
            low, high = predicted.interval(self.level)
        else:
            low = high = predicted.mean
        unit = self._stddev(predicted) if self.score == "scaled" else torch.ones_like(low)
        exact = self.margins.dtype
        return low.to(exact), high.to(exact), unit.to(exact)

    def _stddev(self, predicted: LabelDistribution) -> Tensor:
        """Standard deviation, of a prediction all in one bin a hundredth of a bin."""
        bins = predicted.bins
        least = (bins.last - bins.first) / (len(bins) - 1) / 100
        return predicted.stddev.clamp(min=least)

    def _group(self, group: Tensor | None, predicted: LabelDistribution) -> Tensor:
        device = predicted.logits.device
        if group is None:
            if self.groups > 1:
                raise ValueError(f"group: expected one of {self.groups} for each, got none")
            return torch.zeros(predicted.batch_shape, dtype=torch.long, device=device)
        check_tensor("group", group, "N", "integer", N=predicted.batch_shape[0])
        return group.to(device, torch.long)

    def options(self) -> str:
        """The level, the score and the groups."""
        return f"level={self.level:g}, score={self.score!r}, groups={self.groups}"

    def extra_repr(self) -> str:
        """The options, for `repr`."""
        return self.options()


def _one_axis(predicted: LabelDistribution) -> torch.Size:
    check_distribution("predicted", predicted)
    if len(predicted.batch_shape) != 1:
        raise ValueError(
            f"predicted: expected distributions (N,), got {tuple(predicted.batch_shape)}"
        )
    return predicted.batch_shape


def _one_of_each(cluster: Tensor) -> Tensor:
    """Index of one sample of each cluster, drawn: the first ones may be special, as visits are."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(cluster), generator=generator, device="cpu").to(cluster.device)
    drawn, places = cluster[order].sort(stable=True)
    first = torch.ones_like(drawn, dtype=torch.bool)
    first[1:] = drawn[1:] != drawn[:-1]
    return order[places[first]]


def _round_away(ends: Tensor, towards: float, dtype: torch.dtype) -> Tensor:
    """Ends in another dtype, a rounding step further out."""
    ends = ends.to(dtype)
    known = ends.detach()
    step = torch.nextafter(known, torch.full_like(known, towards)) - known
    return ends + torch.where(known.isfinite(), step, 0)
