"""Any metric by group, and how much the test set decides about it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldlcam._check import check_count, check_open_fraction, check_tensor
from ldlcam._precision import upcast
from ldlcam.ldl.prediction import LabelDistribution


class Estimate(NamedTuple):
    """A metric with its bootstrap interval."""

    value: Tensor
    """On the samples as they are."""
    low: Tensor
    """Lower end of the interval."""
    high: Tensor
    """Upper end of the interval."""


def bootstrap(
    metric: Callable[..., Tensor],
    *samples: Any,
    cluster: Tensor | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A metric and its bootstrap interval: how it might have come out on other samples.

    What belongs to a sample is drawn together, so a difference between two predictions of the same
    samples is paired: `bootstrap(lambda a, b, y: error(a, y) - error(b, y), a, b, y)`. The interval
    says how much the choice of samples decides, not what training again would give.

    Args:
        metric: Takes the samples and returns a floating tensor: a scalar, or several figures, each
            of which gets an interval of its own.
        *samples: One or more of what the metric takes, of N samples each: tensors (N, ...), or
            a `LabelDistribution` (N,).
        cluster: What each sample belongs to (N,), integer, such as the person that several images
            show. Then clusters are drawn, with all of their samples: those of one tell less than
            as many of others. By default each sample is alone.
        level: Level of the percentile interval, in (0, 1).
        resamples: How many times N samples, or as many clusters as there are, are drawn with
            replacement.
        seed: Seed of the drawing.

    Returns:
        The value, and the ends of its interval, float64 if the value is and float32 otherwise. The
        ends are NaN where the value is, and where there are fewer than two samples or clusters,
        of which every draw would be the same. Draws for which the metric is NaN are left out, as
        means of values are without any present target. (Those of localization are 0 there, so it
        takes samples that all have targets.)

    Raises:
        TypeError: If the metric returns no floating tensor, or `cluster` is no integer tensor.
        ValueError: If there is nothing to draw from, a shape is wrong, or an option is out of
            range.

    Example:
        >>> import torch
        >>> from ldlcam import bootstrap, mean_absolute_error
        >>> ages = 240 * torch.rand(400)
        >>> value, low, high = bootstrap(mean_absolute_error, ages + torch.randn(400), ages)
        >>> bool(low < value < high)
        True
        >>> errors = (10 * torch.randn(100)).repeat_interleave(4)  # four images of each person
        >>> person = torch.arange(100).repeat_interleave(4)
        >>> apart, together = (bootstrap(torch.mean, errors, cluster=c) for c in (None, person))
        >>> bool(together.high - together.low > 1.5 * (apart.high - apart.low))
        True

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: the percentile interval.
        Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8: drawing
        clusters whole.
    """
    check_open_fraction("level", level)
    check_count("resamples", resamples)
    if not samples:
        raise ValueError("samples: expected one or more, got none")
    counts = [_count(each) for each in samples]
    if len(set(counts)) > 1:
        raise ValueError(f"samples: expected as many of each, got {counts}")
    if cluster is not None:
        check_tensor("cluster", cluster, "N", "integer", N=counts[0])
    value = metric(*samples)
    check_tensor("metric", value, dtype="floating")
    draw = _drawing(counts[0], cluster, torch.Generator().manual_seed(seed))
    if draw is None:
        nothing = torch.full_like(upcast(value), torch.nan)
        return Estimate(value, nothing, nothing.clone())
    drawn = []
    with torch.no_grad():
        for _ in range(resamples):
            index = draw()
            drawn.append(metric(*(each[index.to(_device(each))] for each in samples)))
    tail = (1 - level) / 2
    figures = upcast(torch.stack(drawn))
    ends = _quantiles(figures, figures.new_tensor([tail, 1 - tail]))
    # Where the value cannot be told, draws that miss what spoils it tell of something else.
    low, high = ends.masked_fill(value.isnan(), torch.nan)
    return Estimate(value, low, high)


def _drawing(
    count: int, cluster: Tensor | None, generator: torch.Generator
) -> Callable[[], Tensor] | None:
    """Draws the indices of samples: as many as there are, or of as many clusters, all theirs.

    None where each draw would be the same: of one, or of none.
    """
    if cluster is None:
        if count < 2:
            return None
        return lambda: torch.randint(count, (count,), generator=generator, device="cpu")
    _, of_each, sizes = torch.unique(cluster.cpu(), return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return None
    order: Tensor = of_each.argsort(stable=True)
    starts = sizes.cumsum(0) - sizes

    def draw() -> Tensor:
        chosen = torch.randint(len(sizes), (len(sizes),), generator=generator, device="cpu")
        lengths = sizes[chosen]
        # From a place among those drawn to one in the order by clusters.
        shifts = starts[chosen] - (lengths.cumsum(0) - lengths)
        places = torch.arange(int(lengths.sum()), device="cpu")
        return order[places + shifts.repeat_interleave(lengths)]

    return draw


def _quantiles(figures: Tensor, shares: Tensor) -> Tensor:
    """Quantiles (Q, ...) of what draws gave (R, ...), without those that gave NaN."""
    between = figures.nanquantile(shares, dim=0)
    # Between two infinite figures there is nothing to interpolate.
    nearest = figures.nanquantile(shares, dim=0, interpolation="nearest")
    return torch.where(between.isnan(), nearest, between)


def by_group(
    metric: Callable[..., Any], group: Tensor, *samples: Any, groups: int | None = None
) -> list[Any]:
    """A metric of each group of samples, such as sexes or bands of age.

    Args:
        metric: Takes the samples of a group; `functools.partial(bootstrap, mean_absolute_error)`
            adds intervals.
        group: Group of each sample (N,), integer, 0 to groups - 1; samples of other groups are
            left out. `Bins.index` makes bands of values, the outer ones of which hold what lies
            beyond the bins too.
        *samples: What the metric takes, of N samples each, as for `bootstrap`.
        groups: Number of groups; by default one more than the highest in `group`.

    Returns:
        What the metric returned for each group, in order.

    Raises:
        TypeError: If `group` is not an integer tensor.
        ValueError: If a shape is wrong, or `groups` is no count.

    Example:
        >>> import torch
        >>> from ldlcam import by_group, mean_error
        >>> sex = torch.tensor([0, 1, 1])
        >>> by_group(mean_error, sex, torch.tensor([5.0, 7.0, 9.0]), torch.tensor([6.0, 5.0, 9.0]))
        [tensor(-1.), tensor(1.)]

        What is said of samples goes with them, such as whom each shows:

        >>> from ldlcam import bootstrap
        >>> ages, person = 80 * torch.rand(60), torch.arange(60) // 2
        >>> def told(predicted, true, person):
        ...     return bootstrap(mean_error, predicted, true, cluster=person)
        >>> len(by_group(told, person % 2, ages + torch.randn(60), ages, person))
        2
    """
    return [metric(*chosen) for chosen in split_samples(group, samples, groups)]


def split_samples(
    group: Tensor, samples: Sequence[Any], groups: int | None = None
) -> Iterator[list[Any]]:
    """The samples of each group, in order; of the arguments of `by_group`."""
    check_tensor("group", group, "N", "integer")
    for each in samples:
        if _count(each) != len(group):
            raise ValueError(f"samples: expected {len(group)} as group has, got {_count(each)}")
    group = group.long()
    if groups is None:
        groups = int(group.max()) + 1 if len(group) else 0
    check_count("groups", groups, least=0)
    for index in range(groups):
        yield [each[(group == index).to(_device(each))] for each in samples]


def _count(samples: Any) -> int:
    if not isinstance(samples, Tensor | LabelDistribution):
        raise TypeError(
            f"samples: expected tensors or LabelDistributions, got {type(samples).__name__}"
        )
    shape = samples.shape if isinstance(samples, Tensor) else samples.batch_shape
    if len(shape) == 0:
        raise ValueError("samples: expected shape (N, ...), got ()")
    return int(shape[0])


def _device(samples: Any) -> torch.device:
    return samples.device if isinstance(samples, Tensor) else samples.logits.device
