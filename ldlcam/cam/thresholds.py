"""Thresholds of heat maps, all as fractions of a map's maximum."""

import bisect

import torch
from torch import Tensor

from ldlcam._check import check_number, check_tensor
from ldlcam._precision import upcast
from ldlcam.cam.heatmaps import sanitize_heatmaps


def percentile_threshold(heatmaps: Tensor, percentile: float | Tensor) -> Tensor:
    """The fraction of each map's maximum that a share of its cells stays below.

    Values between cells are interpolated linearly, as numpy does. A fraction is above 0, so where
    the percentile falls on a value that is not, it is the dtype's epsilon: next to all that is
    above 0.

    Args:
        heatmaps: Heat maps, (N, h, w), floating; half precision is computed in float32.
        percentile: The share in percent, in [0, 100]: a float, or a tensor () or (N,).

    Returns:
        Fractions of the maximum, (N,) in (0, 1], at least float32; 1 for maps that show no place
        (`valid_heatmaps`). A percentile of a tensor outside of [0, 100] counts as the nearer end.

    Raises:
        TypeError: If the maps are not a floating tensor, or the percentile is neither that nor a
            number.
        ValueError: If the shapes do not fit, or a float percentile is not in [0, 100].

    Example:
        >>> import torch
        >>> from ldlcam import percentile_threshold, threshold_mask
        >>> heatmaps = torch.arange(10.0).view(1, 2, 5)
        >>> threshold = percentile_threshold(heatmaps, 80)
        >>> threshold_mask(heatmaps, threshold).sum()
        tensor(2)
    """
    ordered, peaks, valid = _ordered(heatmaps)
    if isinstance(percentile, Tensor):
        if percentile.ndim != 0:
            check_tensor("percentile", percentile, "N", "real", N=ordered.shape[0])
        shares = percentile.to(ordered) / 100
    else:
        expected = "a number in [0, 100]"
        check_number("percentile", percentile, expected, lambda number: 0 <= number <= 100)
        shares = ordered.new_tensor(percentile / 100)
    last = ordered.shape[1] - 1
    places = (shares.clamp(0, 1).nan_to_num(1.0) * last).expand(ordered.shape[0]).unsqueeze(1)
    below = places.detach().long()
    low, high = (ordered.gather(1, place) for place in (below, (below + 1).clamp(max=last)))
    values = torch.lerp(low, high, places - below)
    return _fractions(values.squeeze(1), peaks, valid)


def otsu_threshold(heatmaps: Tensor) -> Tensor:
    """The fraction of each map's maximum that parts its cells into two classes best.

    Best is the split with the greatest variance between the classes, which is the least within
    them. It is exact: all splits between different values are compared, not those of a histogram,
    and the threshold lies halfway between the two values next to the split.

    Args:
        heatmaps: Heat maps, (N, h, w), floating; half precision is computed in float32.

    Returns:
        Fractions of the maximum, (N,) in (0, 1], at least float32; 1 for maps that show no place
        (`valid_heatmaps`), and the dtype's epsilon where the split is not above 0.

    Raises:
        TypeError: If the maps are not a floating tensor.
        ValueError: If they are not (N, h, w).

    Example:
        >>> import torch
        >>> from ldlcam import otsu_threshold
        >>> otsu_threshold(torch.tensor([[[0.0, 0.1, 0.2, 0.8, 0.9, 1.0]]]))
        tensor([0.5000])

    References:
        Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on
        Systems, Man, and Cybernetics 1979.
    """
    ordered, peaks, valid = _ordered(heatmaps)
    count = ordered.shape[1]
    if count == 1:
        return torch.ones_like(peaks)
    # About the mean, both classes' means follow from one sum.
    scaled = ordered.detach() / ordered.detach().abs().amax(1, keepdim=True)  # squares have no room
    below = (scaled - scaled.mean(1, keepdim=True)).cumsum(1)[:, :-1]
    sizes = torch.arange(1, count, device=ordered.device)
    between = below.square() / (sizes * (count - sizes))
    between = between.masked_fill(ordered[:, 1:] == ordered[:, :-1], -1)
    best = between.argmax(1, keepdim=True)
    values = (ordered.gather(1, best) + ordered.gather(1, best + 1)) / 2
    return _fractions(values.squeeze(1), peaks, valid)


def jet_to_fraction(tau: float, *, strict: bool = False) -> float:
    """The fraction of the maximum at which a threshold on a coloured map's grey values cuts.

    The map is taken as `uint8(255 * heatmap / maximum)`, coloured by OpenCV's JET and read as
    grey, which is what Chen et al. do before they threshold. JET's greys rise from 15 to 226 over
    the first 0.62 of the range and fall after it: what is hotter than that can be darker again,
    so above about 38 a threshold on grey loses the hottest core of a region, though rarely moves
    its box. The fraction here is that of the rising part.

    Args:
        tau: The threshold on grey values, in (15, 226].
        strict: Whether the mask is grey > tau, as in the authors' code, or grey >= tau, as in
            their Eq. 4. Then tau is in [15, 226).

    Returns:
        The fraction, in (0, 0.624].

    Raises:
        TypeError: If tau is not a number.
        ValueError: If tau is not on the range that can be inverted. 15 and less keep the whole
            image.

    Example:
        >>> from ldlcam import jet_to_fraction
        >>> round(jet_to_fraction(50, strict=True), 3)
        0.165

    References:
        Chen et al., arXiv 2006.00202, Table I and the authors' code.
    """
    lowest, highest = _JET_GREYS[0], _JET_GREYS[-1]

    def fits(tau: float) -> bool:
        return lowest <= tau < highest if strict else lowest < tau <= highest

    interval = f"[{lowest}, {highest})" if strict else f"({lowest}, {highest}]"
    check_number("tau", tau, f"a grey value in {interval}", fits)
    find = bisect.bisect_right if strict else bisect.bisect_left
    return find(_JET_GREYS, tau) / 255


def fraction_to_jet(fraction: float, *, strict: bool = False) -> int:
    """The threshold on a coloured map's grey values that cuts at a fraction of the maximum.

    The inverse of `jet_to_fraction`, to the nearest of the map's 255 levels, of which one to
    three have the same grey value.

    Args:
        fraction: The fraction of the maximum, in (0, 0.624].
        strict: Whether the mask is grey > tau or grey >= tau.

    Returns:
        The threshold tau.

    Raises:
        TypeError: If the fraction is not a number.
        ValueError: If the fraction is not on the range that can be inverted.

    Example:
        >>> from ldlcam import fraction_to_jet
        >>> fraction_to_jet(0.161)
        50

    References:
        Chen et al., arXiv 2006.00202, Table I and the authors' code.
    """
    last = len(_JET_GREYS) - 1
    expected = f"a number in (0, {last / 255:.3f}], beyond which JET gets darker"
    check_number("fraction", fraction, expected, lambda number: 0 < number <= last / 255)
    level = max(round(255 * fraction), 1)
    return _JET_GREYS[level] - 1 if strict else _JET_GREYS[level]


def _jet_greys() -> list[int]:
    """Grey values of OpenCV's JET from dark blue through cyan to yellow, where it is brightest."""
    greys = []
    for level in range(160):
        blue = min(128 + 4 * level, 255, 638 - 4 * level)
        green = min(max(4 * (level - 32), 0), 255)
        red = max(4 * level - 382, 0)
        # 0.299, 0.587 and 0.114 in OpenCV's fixed point.
        greys.append((9798 * red + 19235 * green + 3735 * blue + 2**14) >> 15)
    return greys


_JET_GREYS = _jet_greys()


def _ordered(heatmaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each map's values in order (N, h w), its maximum and validity; at least float32."""
    maps, peaks, valid = sanitize_heatmaps(heatmaps)
    return upcast(maps).flatten(1).sort(1).values, upcast(peaks), valid


def _fractions(values: Tensor, peaks: Tensor, valid: Tensor) -> Tensor:
    """Values as fractions of the maxima: those whose products are not above the values."""
    fractions = values / peaks
    with torch.no_grad():
        # Rounded up, a cell at the threshold would be below it.
        excess = torch.where(fractions * peaks > values, fractions, 0)
        excess = excess - excess.nextafter(torch.zeros_like(excess))
    least = torch.finfo(values.dtype).eps
    return torch.where(valid, (fractions - excess).clamp(least, 1), 1)
