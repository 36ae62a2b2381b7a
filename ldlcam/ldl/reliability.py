"""Whether predictions are as sure as they should be."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ldlcam._check import check_tensor
from ldlcam._precision import upcast
from ldlcam.ldl.prediction import LabelDistribution, check_distribution

LEVELS = tuple(level / 20 for level in range(1, 20))


def interval_coverage(low: Tensor, high: Tensor, targets: Tensor) -> Tensor:
    """Share of the true values that lie inside of their intervals, ends included, from 0 to 1.

    Args:
        low: Lower ends (N,), real.
        high: Upper ends (N,), real.
        targets: True values (N,), real, in the same unit. NaN is missing and left out.

    Returns:
        A scalar, float64 if an argument is and float32 otherwise; NaN without any present target.

    Raises:
        TypeError: If an argument is not a real tensor.
        ValueError: If a shape is wrong.

    Example:
        >>> import torch
        >>> from ldlcam import interval_coverage
        >>> low, high = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
        >>> interval_coverage(low, high, torch.tensor([3.0, 1.0]))
        tensor(0.5000)
    """
    check_tensor("low", low, "N", "real")
    check_tensor("high", high, "N", "real", N=low.shape[0])
    check_tensor("targets", targets, "N", "real", N=low.shape[0])
    inside = (low <= targets) & (targets <= high)
    dtype = (upcast(low) + upcast(high) + upcast(targets)).dtype
    return inside.to(dtype).sum() / (~targets.isnan()).sum()


def mean_crps(predicted: LabelDistribution, targets: Tensor) -> Tensor:
    """Mean continuous ranked probability score, in the unit of the bins: lower is better.

    It judges place and spread at once; of predictions without any spread it is the mean absolute
    error. See `LabelDistribution.crps`.

    Args:
        predicted: Predictions (N,).
        targets: True values (N,), real, in the unit of the bins. NaN is missing and left out.

    Returns:
        A scalar of the predictions' dtype; NaN without any present target.

    Raises:
        TypeError: If `predicted` is no `LabelDistribution` or `targets` no real tensor.
        ValueError: If a shape is wrong.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution, mean_crps
        >>> predicted = LabelDistribution(torch.zeros(2, 240), Bins(1, 240))
        >>> mean_crps(predicted, torch.tensor([24.0, 120.0]))
        tensor(39.4007)
    """
    missing = _missing(predicted, targets)
    # Missing targets are replaced first: NaN times a gradient of 0 is NaN.
    scores = predicted.crps(targets.masked_fill(missing, 0)).masked_fill(missing, 0)
    return scores.sum() / (~missing).sum()


def probability_integral_transform(predicted: LabelDistribution, targets: Tensor) -> Tensor:
    """Where each true value lies in its predicted distribution, from 0 to 1: its cdf there.

    Of predictions that are right these are spread evenly: a heap in the middle means distributions
    that are too wide, heaps at the ends too narrow ones.

    Args:
        predicted: Predictions (N,).
        targets: True values (N,), real, in the unit of the bins. NaN is missing.

    Returns:
        (N,) of the predictions' dtype, NaN for a missing value.

    Raises:
        TypeError: If `predicted` is no `LabelDistribution` or `targets` no real tensor.
        ValueError: If a shape is wrong.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution, probability_integral_transform
        >>> predicted = LabelDistribution(torch.zeros(2, 240), Bins(1, 240))
        >>> probability_integral_transform(predicted, torch.tensor([0.5, 120.5]))
        tensor([0.0000, 0.5000])
    """
    missing = _missing(predicted, targets)
    return predicted.cdf(targets.masked_fill(missing, 0)).masked_fill(missing, torch.nan)


def coverage_by_level(
    predicted: LabelDistribution, targets: Tensor, levels: Sequence[float] | Tensor = LEVELS
) -> Tensor:
    """Share of the true values inside of the predictions' central intervals, at each level.

    Args:
        predicted: Predictions (N,).
        targets: True values (N,), real, in the unit of the bins. NaN is missing and left out.
        levels: L levels in [0, 1], at least one. A value outside of the bins is in no interval.

    Returns:
        Shares (L,), float32 or float64; NaN without any present target.

    Raises:
        TypeError: If `predicted` is no `LabelDistribution` or `targets` no real tensor.
        ValueError: If a shape is wrong, `levels` is empty or a number of it not in [0, 1].

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution, coverage_by_level
        >>> predicted = LabelDistribution(torch.zeros(4, 240), Bins(1, 240))
        >>> coverage_by_level(predicted, torch.tensor([20.0, 100.0, 120.5, 239.0]), [0.5, 0.9])
        tensor([0.5000, 0.7500])
    """
    places = probability_integral_transform(predicted, targets)
    given, levels = levels, torch.as_tensor(levels, dtype=places.dtype, device=places.device)
    check_tensor("levels", levels, "L")
    check_levels(given)
    first, last = predicted.bins.edges_as(places.dtype, places.device)[[0, -1]]
    between = (targets >= first) & (targets <= last)
    from_middle = 2 * (places - 0.5).abs()
    inside = between[:, None] & (from_middle[:, None] <= levels)
    shares: Tensor = inside.to(places.dtype).sum(0) / (~places.isnan()).sum()
    return shares


def expected_calibration_error(
    predicted: LabelDistribution, targets: Tensor, levels: Sequence[float] | Tensor = LEVELS
) -> Tensor:
    """Mean gap between the levels of intervals and the share of true values inside, from 0 to 1.

    Args:
        predicted: Predictions (N,).
        targets: True values (N,), real, in the unit of the bins. NaN is missing and left out.
        levels: L levels in [0, 1], at least one; by default 5% to 95%.

    Returns:
        A scalar, float32 or float64; NaN without any present target.

    Raises:
        TypeError: If `predicted` is no `LabelDistribution` or `targets` no real tensor.
        ValueError: If a shape is wrong, `levels` is empty or a number of it not in [0, 1].

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution, expected_calibration_error
        >>> predicted = LabelDistribution(torch.zeros(500, 240), Bins(1, 240))
        >>> expected_calibration_error(predicted, 0.5 + 240 * torch.rand(500)) < 0.05
        tensor(True)

    References:
        Kuleshov et al., "Accurate Uncertainties for Deep Learning Using Calibrated Regression",
        ICML 2018, with central intervals and a mean of absolute gaps.
    """
    shares = coverage_by_level(predicted, targets, levels)
    return (shares - torch.as_tensor(levels, dtype=shares.dtype, device=shares.device)).abs().mean()


def check_levels(levels: Sequence[float] | Tensor) -> None:
    """Check that there are levels, and that they are in [0, 1].

    Raises:
        ValueError: If there is none or one is not.
    """
    if len(levels) == 0:
        raise ValueError("levels: expected at least one, got none")
    # Those of a tensor are not looked at: that would wait for the device.
    if not isinstance(levels, Tensor) and not all(0 <= level <= 1 for level in levels):
        raise ValueError(f"levels: expected all in [0, 1], got {list(levels)}")


def _missing(predicted: LabelDistribution, targets: Tensor) -> Tensor:
    """Which targets are missing (N,), of arguments that are checked."""
    check_distribution("predicted", predicted)
    check_tensor("targets", targets, "N", "real", N=predicted.batch_shape.numel())
    return targets.isnan()
