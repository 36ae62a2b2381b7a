"""Logs of label distributions: a peak around each value, and what becomes of it at the ends."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ldlcam._check import check_choice, check_positive, check_tensor
from ldlcam._precision import upcast
from ldlcam.ldl.bins import Bins, check_bins

ENDS = ("renormalize", "preserve_mean", "extend", "error")

# Values further outside of the bins than this many spreads count as this far.
_FAR = 100.0
# In equal bins the mean is right to 1e-7 after 8 steps as a rule and 14 for a spread of a tenth of
# a bin. In uneven ones, whose widths may differ by any factor, the bracket may have to be halved
# again and again.
_NEWTON_STEPS, _NEWTON_STEPS_UNEVEN = 24, 80
# In steps of the narrowest bin: what is added to the logs of a narrower label, to give it its mean,
# is so large that rounding would decide between two bins.
_LEAST_TILTED = 0.01


class Peak(NamedTuple):
    """A density symmetric about 0, of spread 1, by its logs."""

    log_density: Callable[[Tensor], Tensor]
    log_cdf: Callable[[Tensor], Tensor]


def _laplace_log_cdf(z: Tensor) -> Tensor:
    below = z.clamp(max=0) - math.log(2)
    above = torch.log1p(-(-z.clamp(min=0)).exp() / 2)
    return torch.where(z < 0, below, above)


def _gaussian_log_cdf(z: Tensor) -> Tensor:
    if z.requires_grad:
        # In small steps, for the gradient of torch's own overflows far out.
        below, above = z.clamp(max=0), z.clamp(min=0)
        tail = torch.special.erfcx(-below * math.sqrt(0.5)).log() - math.log(2)
        inside = torch.log1p(-torch.erfc(above * math.sqrt(0.5)) / 2)
        return torch.where(z < 0, tail - below.square() / 2, inside)
    log_cdf: Tensor = torch.special.log_ndtr(z)
    return log_cdf


GAUSSIAN = Peak(
    log_density=lambda z: -z.square() / 2 - math.log(2 * math.pi) / 2,
    log_cdf=_gaussian_log_cdf,
)
LAPLACE = Peak(log_density=lambda z: -z.abs() - math.log(2), log_cdf=_laplace_log_cdf)


def log_labels(
    values: Tensor,
    bins: Bins,
    spread: float | Tensor,
    *,
    peak: Peak = GAUSSIAN,
    ends: str = "renormalize",
    integrate: bool = False,
    floor: bool = True,
    name: str = "sigma",
) -> tuple[Tensor, Tensor]:
    """Logs of the label distributions (N, K), all finite, and which values are present (N,).

    The logs are analytic: the log of a probability that has underflown to 0 would be -inf, and
    0 * -inf in a divergence is NaN. With `floor`, those that are to be exponentiated again stop
    where the probability would be a denormal number, which are slow. `name` is what the caller
    calls the spread.
    """
    check_bins(bins)
    check_tensor("values", values, "N", "real")
    check_choice("ends", ends, ENDS)
    values = upcast(values)
    centers = bins.centers_as(values.dtype, values.device)
    edges = bins.edges_as(values.dtype, values.device)

    if isinstance(spread, Tensor):
        check_tensor(name, spread, "N", "real", N=values.shape[0])
    else:
        check_positive(name, spread)
    spread = spread_of(spread, values, bins)
    if ends == "preserve_mean":
        spread = spread.clamp(min=_LEAST_TILTED * bins.narrowest)
    present = values.isfinite() & spread.isfinite()
    # Replaced before any arithmetic: masking afterwards would leave NaN in the gradients.
    values = torch.where(present, values, bins.first)[:, None]
    spread = torch.where(present, spread, 1.0)[:, None]
    if ends == "error":
        refuse_outside(values, bins)
    if ends == "preserve_mean":
        values = values.clamp(centers[:2].mean(), centers[-2:].mean())
    else:
        values = within_reach(values, bins, spread)

    logs = _log_shares(peak, values, spread, centers, edges, integrate)
    if ends == "extend":
        below = peak.log_cdf((edges[0] - values) / spread)
        above = peak.log_cdf((values - edges[-1]) / spread)
        first = torch.logaddexp(logs[:, :1], below)
        last = torch.logaddexp(logs[:, -1:], above)
        logs = torch.cat([first, logs[:, 1:-1], last], dim=-1)
    if ends == "preserve_mean":
        offsets = centers - values
        tilt = _mean_preserving_tilt(logs, offsets, spread, bins)
        if logs.requires_grad:
            tilt = _with_gradient(tilt, logs, offsets, bins)
        logs = logs + tilt * offsets
    logs = logs - logs.amax(-1, keepdim=True).detach()
    if floor:
        logs = logs.clamp(min=lowest_log(logs))
    return logs.log_softmax(-1), present


def lowest_log(logs: Tensor) -> float:
    """How far logs (N, K) may lie below the highest: less would be denormal numbers, and slow.

    That goes for probabilities, and for what they are multiplied by, down to 1e-10: the share of
    one in a large batch.
    """
    return math.log(torch.finfo(logs.dtype).tiny) + math.log(1e10) + math.log(logs.shape[-1])


def log_mass(values: Tensor, bins: Bins, sigma: float) -> Tensor:
    """Log of how much of a Gaussian at each value the bins hold (N,), sampled at their centres."""
    values = values[:, None]
    centers = bins.centers_as(values.dtype, values.device)
    edges = bins.edges_as(values.dtype, values.device)
    spread = spread_of(sigma, values[:, 0], bins)[:, None]
    values = within_reach(values, bins, spread)
    return _log_shares(GAUSSIAN, values, spread, centers, edges, False).logsumexp(-1)


def spread_of(given: float | Tensor, values: Tensor, bins: Bins) -> Tensor:
    """Spread (N,) of each value's label, kept to where the arithmetic is finite."""
    spread = given.to(values) if isinstance(given, Tensor) else torch.full_like(values, given)
    return spread.clamp(1e-6 * bins.narrowest, 1e6 * (bins.last - bins.first))


def within_reach(values: Tensor, bins: Bins, spread: Tensor) -> Tensor:
    """Values, those far outside of the bins held at so many spreads."""
    return values.clamp(bins.first - _FAR * spread, bins.last + _FAR * spread)


def refuse_outside(values: Tensor, bins: Bins) -> None:
    """Raise ValueError if a value lies beyond the outer edges; this waits for the device."""
    low, high = bins.edges_as(torch.float64, torch.device("cpu"))[[0, -1]].tolist()
    outside = values[(values < low) | (values > high)]
    if len(outside):
        raise ValueError(
            f"values: expected all from {low:g} to {high:g} with ends='error', "
            f"got {len(outside)} outside, the first {outside[0].item():g}"
        )


def _log_shares(
    peak: Peak, values: Tensor, spread: Tensor, centers: Tensor, edges: Tensor, integrate: bool
) -> Tensor:
    """Log of each bin's share (N, K) in a peak of which some may be outside of the bins."""
    if not integrate:
        return peak.log_density((centers - values) / spread) + edges.diff().log() - spread.log()
    z = (edges - values) / spread
    low, high = z[:, :-1], z[:, 1:]
    # The upper tail is mirrored into the lower one: there the log of the integral is exact.
    mirror = low + high > 0
    low, high = torch.where(mirror, -high, low), torch.where(mirror, -low, high)
    log_high = peak.log_cdf(high)
    ratio = peak.log_cdf(low) - log_high
    return log_high + torch.log(-torch.expm1(ratio.clamp(max=-torch.finfo(z.dtype).eps)))


@torch.no_grad()
def _mean_preserving_tilt(logs: Tensor, offsets: Tensor, spread: Tensor, bins: Bins) -> Tensor:
    """The tilt (N, 1) for which shares exp(logs + tilt * offsets) have a mean offset of 0.

    The mean grows with the tilt and the variance is its slope: Newton's method, halving the
    bracket instead wherever a step would leave it.
    """
    widths = bins.edges_as(logs.dtype, logs.device).diff()
    steepest = 2 + (widths.max() / widths.min()).log()
    limit = 2 * (1 / spread + steepest / widths.min() + widths.max() / spread.square())
    tilt, low, high = torch.zeros_like(spread), -limit, limit
    for _ in range(_NEWTON_STEPS if bins.uniform else _NEWTON_STEPS_UNEVEN):
        mean, variance = _tilted_moments(tilt, logs, offsets)
        low = torch.where(mean < 0, tilt, low)
        high = torch.where(mean < 0, high, tilt)
        step = tilt - mean / variance.clamp(min=torch.finfo(mean.dtype).tiny)
        tilt = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
    return tilt


def _with_gradient(tilt: Tensor, logs: Tensor, offsets: Tensor, bins: Bins) -> Tensor:
    """The same tilt, with its dependence on values and spread: that of one more Newton step."""
    mean, variance = _tilted_moments(tilt, logs, offsets)
    # Where a single bin holds all, no tilt moves the mean, and the step would be infinite.
    least = 1e-6 * bins.narrowest**2
    return tilt - (mean - mean.detach()) / variance.detach().clamp(min=least)


def _tilted_moments(tilt: Tensor, logs: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, 1) of the offsets with shares exp(logs + tilt * offsets)."""
    shares = (logs + tilt * offsets).softmax(-1)
    mean = (shares * offsets).sum(-1, keepdim=True)
    return mean, (shares * (offsets - mean).square()).sum(-1, keepdim=True)
