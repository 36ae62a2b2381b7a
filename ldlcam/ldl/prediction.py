"""From logits over bins to predicted values, and how sure they are."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.nn import functional

from ldlcam._check import (
    check_choice,
    check_fraction,
    check_number,
    check_positive,
    check_tensor,
)
from ldlcam._precision import upcast
from ldlcam.ldl.bins import Bins, check_bins
from ldlcam.ldl.metrics import root


def expectation(logits: Tensor, bins: Bins) -> Tensor:
    """Expectation of the predicted distribution, in the unit of the bins.

    Args:
        logits: Logits (N, K), floating.
        bins: The bins, K of them.

    Returns:
        Expectations (N,), float64 for float64 logits and float32 otherwise, also under autocast.

    Raises:
        TypeError: If `logits` is not a floating tensor, or `bins` are not bins.
        ValueError: If the shape of `logits` is not (N, K).

    Example:
        >>> import torch
        >>> from ldlcam import Bins, expectation
        >>> expectation(torch.zeros(1, 240), Bins(1, 240, unit="months"))
        tensor([120.5000])

    References:
        Chen et al., arXiv:2006.00202, Eqs. 7 and 8.
    """
    check_bins(bins)
    check_tensor("logits", logits, "N K", "floating", K=len(bins))
    logits = upcast(logits)
    return (logits.softmax(-1) * bins.centers_as(logits.dtype, logits.device)).sum(-1)


class Interval(NamedTuple):
    """Ends of an interval, each of a distribution's batch shape, in the unit of the bins."""

    low: Tensor
    high: Tensor


class LabelDistribution(Distribution):
    """Predicted distributions of values, one for each row of logits.

    `mean`, `mode`, `variance` and `crps` are those of the probabilities at the bins' centres.
    Everything else spreads a bin's probability evenly between its edges: the density is constant
    in each bin and the cdf linear. (The two views differ in the variance, by a twelfth of a squared
    step.)

    Arithmetic and results are in float32, or float64 if the logits are. `bins` and the normalized
    `logits` (..., K) are attributes; indexing gives the distributions of some rows.

    Args:
        logits: Logits (..., K), floating; the leading axes are the batch shape.
        bins: The bins, K of them.

    Raises:
        TypeError: If `logits` is not a floating tensor, or `bins` are not bins.
        ValueError: If the last axis of `logits` is not K.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution
        >>> bins = Bins(1, 240, unit="months")
        >>> logits = -((bins.centers - 96.0) / 12.0).square() / 2
        >>> ages = LabelDistribution(logits[None], bins)
        >>> ages.mean.round(), ages.stddev.round()
        (tensor([96.]), tensor([12.]))
        >>> ages.interval(0.9)
        Interval(low=tensor([76.2550]), high=tensor([115.7450]))
        >>> ages.cdf(120.0)
        tensor([0.9772])
        >>> torch.distributions.kl_divergence(ages, ages)
        tensor([0.])

    References:
        Chen et al., arXiv:2006.00202, Eqs. 7 and 8, for the mean.
    """

    def __init__(self, logits: Tensor, bins: Bins) -> None:
        check_bins(bins)
        check_tensor("logits", logits, "... K", "floating", K=len(bins))
        self.bins = bins
        self.logits = upcast(logits).log_softmax(-1)
        # Looking for invalid values, as torch.distributions can, would wait for the device.
        super().__init__(logits.shape[:-1], validate_args=False)

    @classmethod
    def mix(cls, distributions: Sequence["LabelDistribution"]) -> "LabelDistribution":
        """Mixture in equal parts, as of an ensemble or of several views of an image.

        Args:
            distributions: One or more, of equal bins and batch shapes.

        Returns:
            The distributions whose probabilities are the averages.

        Raises:
            TypeError: If they are not a sequence of such distributions.
            ValueError: If there is none, or bins or batch shapes differ.

        Example:
            >>> import torch
            >>> from ldlcam import Bins, LabelDistribution
            >>> logits = torch.tensor([[[9.0, 0.0, 0.0]], [[0.0, 0.0, 9.0]]])
            >>> members = [LabelDistribution(view, Bins(0, 2)) for view in logits]
            >>> LabelDistribution.mix(members).mean
            tensor([1.])
        """
        if not isinstance(distributions, Sequence):
            raise TypeError(
                f"distributions: expected a sequence, got {type(distributions).__name__}"
            )
        if not distributions:
            raise ValueError("distributions: expected one or more, got none")
        for each in distributions:
            check_distribution("distributions", each)
        first = distributions[0]
        for other in distributions[1:]:
            if other.bins != first.bins:
                raise ValueError(
                    f"distributions: expected equal bins, got {first.bins!r} and {other.bins!r}"
                )
            if other.batch_shape != first.batch_shape:
                raise ValueError(
                    "distributions: expected equal batch shapes, got "
                    f"{tuple(first.batch_shape)} and {tuple(other.batch_shape)}"
                )
        logits = torch.stack([each.logits for each in distributions])
        # Of -inf alone the sum is right, but its gradient would be NaN.
        nowhere = (logits == -torch.inf).all(0)
        logits = logits.masked_fill(nowhere, 0).logsumexp(0).masked_fill(nowhere, -torch.inf)
        return cls(logits, first.bins)

    def __getitem__(self, index: Any) -> "LabelDistribution":
        index = index if isinstance(index, tuple) else (index,)
        return type(self)(self.logits[(*index, slice(None))], self.bins)

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Any = None
    ) -> "LabelDistribution":
        """The same distributions over a larger batch shape, as `Tensor.expand` repeats them."""
        return type(self)(self.logits.expand(*batch_shape, len(self.bins)), self.bins)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the logits must be, for `torch.distributions`."""
        return {"logits": constraints.real_vector}

    @property
    def support(self) -> constraints.Constraint:
        """From the first to the last edge, for `torch.distributions`."""
        edges = self._edges()
        return constraints.interval(edges[0], edges[-1])  # type: ignore[no-untyped-call]

    @property
    def probs(self) -> Tensor:
        """Probabilities (..., K) of the bins."""
        return self.logits.exp()

    @property
    def mean(self) -> Tensor:
        """Expectation, in the unit of the bins."""
        return (self.probs * self._centers()).sum(-1)

    @property
    def mode(self) -> Tensor:
        """Centre of the most probable bin, the first of them, in the unit of the bins."""
        likeliest = self._centers()[self.logits.argmax(-1)]
        return torch.where(self.logits.isnan().any(-1), torch.nan, likeliest)

    @property
    def median(self) -> Tensor:
        """Value below which half of the probability lies, in the unit of the bins."""
        return self.quantile(0.5)

    def decode(self, how: str = "mean") -> Tensor:
        """One value for each distribution: its mean, median or mode, in the unit of the bins.

        The mean has the least squared error and the median the least absolute error, if the
        probabilities are right; the mode is one of the centres.

        Args:
            how: `"mean"`, `"median"` or `"mode"`.

        Raises:
            ValueError: If `how` is another word.
        """
        check_choice("how", how, ("mean", "median", "mode"))
        value: Tensor = getattr(self, how)
        return value

    def tempered(self, temperature: Tensor | float) -> "LabelDistribution":
        """The distributions of the logits divided by a temperature: above 1, they are wider.

        Args:
            temperature: Above 0; a number, or a tensor () or of the batch shape, whose values are
                not looked at. `TemperatureScaling` finds one.

        Raises:
            TypeError: If it is neither.
            ValueError: If a number is not above 0, or a tensor has another shape.
        """
        if not isinstance(temperature, Tensor):
            check_positive("temperature", temperature)
        else:
            check_tensor("temperature", temperature, dtype="real")
            if temperature.dim() and temperature.shape != self.batch_shape:
                raise ValueError(
                    f"temperature: expected shape () or {tuple(self.batch_shape)}, "
                    f"got {tuple(temperature.shape)}"
                )
            temperature = temperature.to(self.logits)[..., None]
        return type(self)(self.logits / temperature, self.bins)

    @property
    def variance(self) -> Tensor:
        """Variance, in the squared unit of the bins."""
        deviations = self._centers() - self.mean[..., None]
        return (self.probs * deviations.square()).sum(-1)

    @property
    def stddev(self) -> Tensor:
        """Standard deviation, in the unit of the bins; where it is 0, so is its gradient."""
        return root(self.variance)

    def entropy(self) -> Tensor:
        """Entropy of the density, in nats; of the probabilities, where bins are 1 wide."""
        finite = self._log_density().clamp(min=torch.finfo(self.logits.dtype).min)
        return -(self.probs * finite).sum(-1)

    def log_prob(self, value: Tensor | float) -> Tensor:
        """Log of the density, per unit of the bins; -inf outside of them, NaN for NaN.

        Args:
            value: A number, or values `(..., *batch_shape)`, in the unit of the bins.

        Returns:
            Log densities, of the shape of `value` or, for a number, the batch shape.

        Raises:
            TypeError: If `value` is neither a number nor a real tensor.
            ValueError: If the last axes of `value` are not the batch shape.
        """
        value = self._values("value", value)
        inside = (self._edges()[0] <= value) & (value <= self._edges()[-1])
        density = self._pick(self._log_density(), self.bins.index(value).clamp(min=0))
        known = torch.where(inside, density, -torch.inf)
        return torch.where(value.isnan(), torch.nan, known)

    def cdf(self, value: Tensor | float) -> Tensor:
        """Probability of at most this value: 0 below and 1 above the bins.

        Args:
            value: A number, or values `(..., *batch_shape)`, in the unit of the bins.

        Returns:
            Probabilities, of the shape of `value` or, for a number, the batch shape.

        Raises:
            TypeError: If `value` is neither a number nor a real tensor.
            ValueError: If the last axes of `value` are not the batch shape.
        """
        value = self._values("value", value)
        index = self.bins.index(value).clamp(min=0)
        edges = self._edges()
        part = ((value - edges[index]) / edges.diff()[index]).clamp(0, 1)
        below = self._cumulative()
        start, end = self._pick(below, index), self._pick(below, index + 1)
        return start + part * (end - start)

    def quantile(self, level: Tensor | float) -> Tensor:
        """Smallest value below which lies this share of the probability.

        Args:
            level: A number, or levels `(..., *batch_shape)`; below 0 counts as 0, above 1 as 1.

        Returns:
            Values in the unit of the bins, of the shape of `level` or, for a number, the batch
            shape.

        Raises:
            TypeError: If `level` is neither a number nor a real tensor.
            ValueError: If the last axes of `level` are not the batch shape.
        """
        level = self._values("level", level).clamp(0, 1)
        below = self._cumulative()
        index = self._search(below[..., 1:], level).clamp(max=len(self.bins) - 1)
        start, end = self._pick(below, index), self._pick(below, index + 1)
        part = (level - start) / torch.where(end > start, end - start, 1)
        edges = self._edges()
        return edges[index] + part.clamp(0, 1) * edges.diff()[index]

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Random values `(*sample_shape, *batch_shape)`, in the unit of the bins."""
        shape = (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            return self.quantile(
                torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
            )

    def icdf(self, value: Tensor | float) -> Tensor:
        """The same as `quantile`, under the name that `torch.distributions` gives it."""
        return self.quantile(value)

    def interval(self, level: float, *, kind: str = "central") -> Interval:
        """Interval that holds a share of the probability.

        Args:
            level: Share of the probability inside, in (0, 1].
            kind: `"central"`: as much is left out below as above. `"shortest"`: the shortest that
                holds as much, which of one peak is the region of highest density; at the ends of
                the range it does not leave out the most probable values, as a central one may.

        Returns:
            `low` and `high`, each of the batch shape, in the unit of the bins.

        Raises:
            ValueError: If `level` is not in (0, 1] or `kind` is another word.

        Example:
            >>> import torch
            >>> from ldlcam import Bins, LabelDistribution
            >>> falling = LabelDistribution(torch.tensor([0.7, 0.2, 0.1]).log(), Bins(1, 3))
            >>> falling.interval(0.75)
            Interval(low=tensor(0.6786), high=tensor(2.3750))
            >>> falling.interval(0.75, kind="shortest")
            Interval(low=tensor(0.5000), high=tensor(1.7500))
        """
        check_fraction("level", level)
        check_choice("kind", kind, ("central", "shortest"))
        level = float(level)  # one of a tensor of levels, too
        if kind == "shortest":
            return self._shortest_interval(level)
        return Interval(self.quantile((1 - level) / 2), self.quantile((1 + level) / 2))

    def crps(self, value: Tensor | float) -> Tensor:
        """Continuous ranked probability score of the value, in the unit of the bins; 0 is best.

        The integral of the squared gap between the cdf and that of the value itself. Of a
        prediction that is all at one centre it is the absolute error.

        Args:
            value: A number, or values `(..., *batch_shape)`, in the unit of the bins.

        Returns:
            Scores, of the shape of `value` or, for a number, the batch shape; NaN for NaN.

        Raises:
            TypeError: If `value` is neither a number nor a real tensor.
            ValueError: If the last axes of `value` are not the batch shape.

        References:
            Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA
            2007, for the distribution of the probabilities at the centres.
        """
        value = self._values("value", value)[..., None]
        centers = self._centers()
        steps = centers.diff()
        at_most = self.probs.cumsum(-1)[..., :-1]
        below = torch.minimum((value - centers[:-1]).clamp(min=0), steps)
        between = at_most.square() * below + (1 - at_most).square() * (steps - below)
        outside = (centers[:1] - value).clamp(min=0) + (value - centers[-1:]).clamp(min=0)
        return between.sum(-1) + outside[..., 0]

    def _shortest_interval(self, level: float) -> Interval:
        """Shortest interval of those that begin or end at an edge: one of them is the shortest."""
        edges = self._edges().expand(*self.batch_shape, -1).movedim(-1, 0)
        below = self._cumulative().movedim(-1, 0)
        low = torch.cat((edges, self.quantile(below - level)))
        high = torch.cat((self.quantile(below + level), edges))
        enough = torch.cat((below + level <= 1, below >= level))
        # From the first edge on there always is enough.
        enough[0] = True
        length = torch.where(enough, high - low, torch.inf)
        best = length.argmin(0, keepdim=True)
        low, high = low.gather(0, best)[0], high.gather(0, best)[0]
        return Interval(torch.where(high.isnan(), torch.nan, low), high)

    def _centers(self) -> Tensor:
        return self.bins.centers_as(self.logits.dtype, self.logits.device)

    def _edges(self) -> Tensor:
        return self.bins.edges_as(self.logits.dtype, self.logits.device)

    def _log_density(self) -> Tensor:
        return self.logits - self._edges().diff().log()

    def _cumulative(self) -> Tensor:
        """Probability below each edge (*batch_shape, K + 1), from exactly 0 to exactly 1."""
        below = self.probs.cumsum(-1)
        return functional.pad(below / below[..., -1:], (1, 0))

    def _values(self, name: str, value: Tensor | float) -> Tensor:
        if not isinstance(value, Tensor):
            check_number(name, value, "a number or a tensor")
            return self.logits.new_full(self.batch_shape, value)
        check_tensor(name, value, dtype="real")
        axes = len(self.batch_shape)
        # Only then by its digits: a size that a compiler leaves open has none.
        if value.dim() < axes or value.shape[value.dim() - axes :] != self.batch_shape:
            batch = " ".join(str(size) for size in self.batch_shape)
            check_tensor(name, value, f"... {batch}")
        return value.to(self.logits)

    def _pick(self, table: Tensor, index: Tensor) -> Tensor:
        """Entries `(..., *batch_shape)` of a table (*batch_shape, M)."""
        table = table.expand(*index.shape, table.shape[-1])
        return table.gather(-1, index[..., None])[..., 0]

    def _search(self, table: Tensor, value: Tensor) -> Tensor:
        """First index at which a table `(*batch_shape, M)` reaches each value."""
        # Multiplied, not by `numel`: a size that a compiler leaves open stays open.
        batch = math.prod(self.batch_shape)
        samples = math.prod(value.shape[: value.dim() - len(self.batch_shape)])
        rows = table.reshape(batch, table.shape[-1]).contiguous()
        found = torch.searchsorted(rows, value.reshape(samples, batch).T.contiguous())
        return found.T.reshape(value.shape)


def check_distribution(name: str, value: object) -> None:
    """Check that an argument is a label distribution.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(value, LabelDistribution):
        raise TypeError(f"{name}: expected a LabelDistribution, got {type(value).__name__}")


@register_kl(LabelDistribution, LabelDistribution)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_of_label_distributions(p: LabelDistribution, q: LabelDistribution) -> Tensor:
    if p.bins != q.bins:
        raise ValueError(f"q: expected the bins of p, {p.bins!r}, got {q.bins!r}")
    # A bin without probability adds nothing, whatever the other says of it.
    probs = p.probs
    gaps = torch.where(probs > 0, p.logits - q.logits, 0)
    return (probs * gaps).sum(-1)
