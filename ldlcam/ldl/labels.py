"""From values to the label distributions that stand for them."""

import math

import torch
from torch import Tensor

from ldlcam._check import check_choice, check_positive, check_tensor
from ldlcam._precision import upcast
from ldlcam.ldl.bins import Bins

ENDS = ("renormalize", "preserve_mean", "extend", "error")

# Values further outside of the bins than this many standard deviations count as this far.
_FAR = 100.0
# In equal bins the mean is right to 1e-7 after 8 steps as a rule and 14 for a sigma of a tenth of
# a bin; the rest are for uneven bins, with sigmas down to a four-hundredth of the widest step.
_NEWTON_STEPS = 24


def gaussian_labels(
    values: Tensor,
    bins: Bins,
    sigma: float | Tensor,
    *,
    ends: str = "renormalize",
    integrate: bool = False,
) -> Tensor:
    """Gaussian label distributions: a value's probability over the bins, each row summing to 1.

    A bin's share is the density at its centre times its width or, with `integrate`, the integral
    of the density between its edges. At the ends of the range a part of the Gaussian falls
    outside; `ends` says what becomes of it:

    - `"renormalize"`: it is left out and the rest is scaled to 1. The label's mean is then drawn
      inwards, by 9.3 at a value of 5 with bins 1 to 240 and a sigma of 15.
    - `"preserve_mean"`: the Gaussian's centre is moved outwards until the label's mean is the
      value; the label gets narrower. Values count as at least half a bin inside of the end
      centres, because at the end centre itself only a single bin would be left. (The move is an
      exponential tilt of the shares, which for `integrate=False` is exactly a move. In very
      uneven bins it is exact for a sigma above about 1/400 of the widest step.)
    - `"extend"`: the end bins take what falls beyond them, as bins "up to" and "from".
    - `"error"`: like `"renormalize"`, but values beyond the outer edges are refused. This looks
      at the data, so it waits for the device and does not compile to one graph.

    Values outside of the bins have labels at the end they are nearest to: the further outside,
    the sharper, up to 100 sigma.

    Args:
        values: Values (N,), real, in the unit of the bins. NaN or infinite is missing.
        bins: The bins, K of them.
        sigma: Standard deviation, in the unit of the bins; a number, or (N,) for one per value.
            Entries that are not above 0 give all to the nearest bin; NaN is missing.
        ends: What happens at the ends of the range, see above.
        integrate: Whether to integrate the density over each bin instead of sampling it at the
            centre. It matters when `sigma` is about a bin or less.

    Returns:
        Probabilities (N, K), float64 for float64 values and float32 otherwise. The row of a
        missing value is all zeros.

    Raises:
        TypeError: If `values` or `sigma` are of another type.
        ValueError: If a shape is wrong, `sigma` is a number not above 0, `ends` is another word,
            or with `ends="error"` a value lies beyond the outer edges.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, gaussian_labels
        >>> bins = Bins(1, 240, unit="months")
        >>> ages = torch.tensor([5.0, 120.0], dtype=torch.float64)
        >>> (gaussian_labels(ages, bins, 15.0) * bins.centers).sum(-1)
        tensor([ 14.2596, 120.0000], dtype=torch.float64)
        >>> (gaussian_labels(ages, bins, 15.0, ends="preserve_mean") * bins.centers).sum(-1)
        tensor([  5.0000, 120.0000], dtype=torch.float64)

    References:
        Chen et al., "Attention-guided discriminative region localization and label distribution
        learning for bone age assessment", arXiv:2006.00202, Eq. 11. Its factor
        1 / sqrt(2 pi delta) makes rows sum to 3.87 at delta = 15; here they sum to 1 and `sigma`
        (its delta) is the standard deviation.
    """
    logs, present = gaussian_log_labels(values, bins, sigma, ends=ends, integrate=integrate)
    return torch.where(present[:, None], logs.exp(), 0.0)


def triangular_labels(
    values: Tensor, bins: Bins, width: float, *, normalize: bool = True
) -> Tensor:
    """Triangular label distributions: highest at the value, zero from `width` away from it on.

    With a width of one step a label is the linear interpolation between two bins.

    Args:
        values: Values (N,), real, in the unit of the bins. Those outside of the end centres count
            as the end centres. NaN or infinite is missing.
        bins: The bins, K of them.
        width: Half the width of the triangle's base, in the unit of the bins; above half of the
            widest step between centres, so that no label is empty.
        normalize: Whether rows sum to 1. If not, the triangle has height 1.

    Returns:
        (N, K), float64 for float64 values and float32 otherwise: probabilities, or with
        `normalize=False` degrees from 0 to 1. The row of a missing value is all zeros.

    Raises:
        TypeError: If `values` is not a real tensor.
        ValueError: If its shape is not (N,), or `width` is too small.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, triangular_labels
        >>> triangular_labels(torch.tensor([2.0, 3.25]), Bins(1, 5), 2.0, normalize=False)
        tensor([[0.5000, 1.0000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.3750, 0.8750, 0.6250, 0.1250]])

    References:
        Chen et al., arXiv:2006.00202, Eq. 5 with l = `width` = 50, which is `normalize=False`.
    """
    check_tensor("values", values, "N", "real")
    values = upcast(values)
    centers = bins.centers_as(values.dtype, values.device)
    if not bins.widest_step / 2 < width < math.inf:
        raise ValueError(
            f"width: expected a finite number above {bins.widest_step / 2:g}, half of the widest "
            f"step between centres, got {width!r}"
        )
    present = values.isfinite()
    peak = torch.where(present, values, bins.first).clamp(bins.first, bins.last)
    distances = (centers - peak[:, None]).abs()
    labels = (1 - distances / width).clamp(min=0)
    # Midway between two bins rounding may leave nothing of a narrow triangle.
    nearest = distances == distances.amin(-1, keepdim=True)
    labels = torch.where(nearest, labels.clamp(min=torch.finfo(labels.dtype).tiny), labels)
    if normalize:
        labels = labels / labels.sum(-1, keepdim=True)
    return torch.where(present[:, None], labels, 0.0)


def gaussian_log_labels(
    values: Tensor,
    bins: Bins,
    sigma: float | Tensor,
    *,
    ends: str = "renormalize",
    integrate: bool = False,
) -> tuple[Tensor, Tensor]:
    """Logs of the label distributions (N, K), all finite, and which values are present (N,).

    The logs are analytic: the log of a probability that has underflown to 0 would be -inf, and
    0 * -inf in a divergence is NaN.
    """
    check_tensor("values", values, "N", "real")
    check_choice("ends", ends, ENDS)
    values = upcast(values)
    centers = bins.centers_as(values.dtype, values.device)
    edges = bins.edges_as(values.dtype, values.device)

    spread = _spread(sigma, values, edges)
    present = values.isfinite() & spread.isfinite()
    # Replaced before any arithmetic: masking afterwards would leave NaN in the gradients.
    values = torch.where(present, values, bins.first)[:, None]
    spread = torch.where(present, spread, 1.0)[:, None]
    if ends == "error":
        _refuse_outside(values, bins)
    if ends == "preserve_mean":
        values = values.clamp(centers[:2].mean(), centers[-2:].mean())
    else:
        values = torch.maximum(values, bins.first - _FAR * spread)
        values = torch.minimum(values, bins.last + _FAR * spread)

    logs = _log_shares(values, spread, centers, edges, integrate)
    if ends == "extend":
        below = torch.special.log_ndtr((edges[0] - values) / spread)
        above = torch.special.log_ndtr((values - edges[-1]) / spread)
        first = torch.logaddexp(logs[:, :1], below)
        last = torch.logaddexp(logs[:, -1:], above)
        logs = torch.cat([first, logs[:, 1:-1], last], dim=-1)
    if ends == "preserve_mean":
        offsets = centers - values
        tilt = _mean_preserving_tilt(logs, offsets, spread, edges)
        if logs.requires_grad:
            tilt = _with_gradient(tilt, logs, offsets, edges)
        logs = logs + tilt * offsets
    # Below the floor their exponentials would be denormal numbers, which are slow.
    floor = math.log(torch.finfo(logs.dtype).tiny) + 1
    return logs.log_softmax(-1).clamp(min=floor), present


def _spread(sigma: float | Tensor, values: Tensor, edges: Tensor) -> Tensor:
    """Standard deviation (N,) of each value, kept to where the arithmetic is finite."""
    if isinstance(sigma, Tensor):
        check_tensor("sigma", sigma, "N", "real", N=values.shape[0])
        spread = sigma.to(values)
    else:
        check_positive("sigma", sigma)
        spread = torch.full_like(values, sigma)
    return spread.clamp(1e-6 * edges.diff().min(), 1e6 * (edges[-1] - edges[0]))


def _refuse_outside(values: Tensor, bins: Bins) -> None:
    low, high = bins.edges_as(torch.float64, torch.device("cpu"))[[0, -1]].tolist()
    outside = values[(values < low) | (values > high)]
    if len(outside):
        raise ValueError(
            f"values: expected all from {low:g} to {high:g} with ends='error', "
            f"got {len(outside)} outside, the first {outside[0].item():g}"
        )


def _log_shares(
    values: Tensor, spread: Tensor, centers: Tensor, edges: Tensor, integrate: bool
) -> Tensor:
    """Log of each bin's share (N, K) in a Gaussian of which some may be outside of the bins."""
    if not integrate:
        z = (centers - values) / spread
        return edges.diff().log() - spread.log() - math.log(2 * math.pi) / 2 - z.square() / 2
    z = (edges - values) / spread
    low, high = z[:, :-1], z[:, 1:]
    # The upper tail is mirrored into the lower one: there the log of the integral is exact.
    mirror = low + high > 0
    low, high = torch.where(mirror, -high, low), torch.where(mirror, -low, high)
    log_high: Tensor = torch.special.log_ndtr(high)
    ratio = torch.special.log_ndtr(low) - log_high
    return log_high + torch.log(-torch.expm1(ratio.clamp(max=-torch.finfo(z.dtype).eps)))


@torch.no_grad()
def _mean_preserving_tilt(logs: Tensor, offsets: Tensor, spread: Tensor, edges: Tensor) -> Tensor:
    """The tilt (N, 1) for which shares exp(logs + tilt * offsets) have a mean offset of 0.

    The mean grows with the tilt and the variance is its slope: Newton's method, halving the
    bracket instead wherever a step would leave it.
    """
    widths = edges.diff()
    steepest = 2 + (widths.max() / widths.min()).log()
    limit = 2 * (1 / spread + steepest / widths.min() + widths.max() / spread.square())
    tilt, low, high = torch.zeros_like(spread), -limit, limit
    for _ in range(_NEWTON_STEPS):
        mean, variance = _tilted_moments(tilt, logs, offsets)
        low = torch.where(mean < 0, tilt, low)
        high = torch.where(mean < 0, high, tilt)
        step = tilt - mean / variance.clamp(min=torch.finfo(mean.dtype).tiny)
        tilt = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
    return tilt


def _with_gradient(tilt: Tensor, logs: Tensor, offsets: Tensor, edges: Tensor) -> Tensor:
    """The same tilt, with its dependence on values and spread: that of one more Newton step."""
    mean, variance = _tilted_moments(tilt, logs, offsets)
    # Where a single bin holds all, no tilt moves the mean, and the step would be infinite.
    least = 1e-6 * edges.diff().min().square()
    return tilt - (mean - mean.detach()) / variance.detach().clamp(min=least)


def _tilted_moments(tilt: Tensor, logs: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, 1) of the offsets with shares exp(logs + tilt * offsets)."""
    shares = (logs + tilt * offsets).softmax(-1)
    mean = (shares * offsets).sum(-1, keepdim=True)
    return mean, (shares * (offsets - mean).square()).sum(-1, keepdim=True)
