"""From values to the label distributions that stand for them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ldlcam._check import check_choice, check_number, check_positive, check_tensor
from ldlcam._precision import upcast
from ldlcam.ldl.bins import Bins, check_bins
from ldlcam.ldl.log_labels import LAPLACE, log_labels, log_mass

# How much each published label of one Gaussian, sampled at bins 1 wide, sums to.
SCALES: dict[str, Callable[[float], float]] = {
    "paper": math.sqrt,
    "code": lambda sigma: math.sqrt(2 * math.pi) * sigma,
}


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
      uneven bins it is exact for a sigma above about 1/400 of the widest step. A sigma below a
      hundredth of the narrowest bin counts as that: two bins share the label.)
    - `"extend"`: the end bins take what falls beyond them, as bins "up to" and "from".
    - `"error"`: like `"renormalize"`, but values beyond the outer edges are refused. This looks
      at the data, so it waits for the device and does not compile to one graph.

    Values outside of the bins have labels at the end they are nearest to: the further outside,
    the sharper, up to 100 sigma.

    Args:
        values: Values (N,), real, in the unit of the bins. NaN or infinite is missing.
        bins: The bins, K of them.
        sigma: Standard deviation, in the unit of the bins; a number, or (N,) for one per value.
            Entries that are not above 0 give all to the nearest bin, unless the mean is to be
            preserved; NaN is missing.
        ends: What happens at the ends of the range, see above.
        integrate: Whether to integrate the density over each bin instead of sampling it at the
            centre. It matters when `sigma` is about a bin or less.

    Returns:
        Probabilities (N, K), float64 for float64 values and float32 otherwise. The row of a
        missing value is all zeros.

    Raises:
        TypeError: If `values`, `bins` or `sigma` are of another type.
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
    logs, present = log_labels(values, bins, sigma, ends=ends, integrate=integrate)
    return torch.where(present[:, None], logs.exp(), 0.0)


def published_gaussian_labels(
    values: Tensor, bins: Bins, sigma: float, *, scale: str = "paper"
) -> Tensor:
    """Gaussian labels that do not sum to 1, at the scales of the paper and of its authors' code.

    They are for reproducing published figures: under a divergence, what a row sums to is a weight
    of its own, and rows at the ends of the range weigh less than others.

    Args:
        values: Values (N,), real, in the unit of the bins. NaN or infinite is missing.
        bins: The bins, K of them; the published ones are 1 wide.
        sigma: Standard deviation, in the unit of the bins.
        scale: `"paper"`: exp(-z^2 / 2) / sqrt(2 pi sigma), as Eq. 11 is printed; a row sums to
            sqrt(sigma) in the middle of the range. `"code"`: exp(-z^2 / 2), with a peak of 1; it
            sums to sqrt(2 pi) sigma. (z is the distance from the value, in sigmas.)

    Returns:
        Labels (N, K), float64 for float64 values and float32 otherwise. The row of a missing
        value is all zeros.

    Raises:
        TypeError: If `values` is not a real tensor, or `bins` are not bins.
        ValueError: If the shape of `values` is not (N,), `sigma` is not above 0, or `scale` is
            another word.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, published_gaussian_labels
        >>> ages = torch.tensor([5.0, 120.0])
        >>> published_gaussian_labels(ages, Bins(1, 240, unit="months"), 15.0).sum(-1)
        tensor([2.3932, 3.8730])

    References:
        Chen et al., arXiv:2006.00202, Eq. 11, and the function `GaussLabel` of the authors' code,
        which no loss of theirs calls.
    """
    check_choice("scale", scale, tuple(SCALES))
    check_positive("sigma", sigma)
    logs, present = log_labels(values, bins, sigma)
    values = torch.where(present, upcast(values), bins.first)
    logs = logs + (log_mass(values, bins, sigma) + math.log(SCALES[scale](sigma)))[:, None]
    return torch.where(present[:, None], logs.exp(), 0.0)


def laplace_labels(
    values: Tensor,
    bins: Bins,
    scale: float | Tensor,
    *,
    ends: str = "renormalize",
    integrate: bool = False,
) -> Tensor:
    """Laplace label distributions: more pointed than Gaussians, with longer tails.

    Args:
        values: Values (N,), real, in the unit of the bins. NaN or infinite is missing.
        bins: The bins, K of them.
        scale: The distance at which the density has fallen to 1 / e of its peak, in the unit of
            the bins; the standard deviation is sqrt(2) times that. A number, or (N,) for one per
            value.
        ends: What happens at the ends of the range, as in `gaussian_labels`.
        integrate: Whether to integrate the density over each bin instead of sampling it at the
            centre.

    Returns:
        Probabilities (N, K), float64 for float64 values and float32 otherwise. The row of a
        missing value is all zeros.

    Raises:
        TypeError: If `values`, `bins` or `scale` are of another type.
        ValueError: As in `gaussian_labels`.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, laplace_labels
        >>> laplace_labels(torch.tensor([3.0]), Bins(1, 5), 1.0)
        tensor([[0.0675, 0.1834, 0.4984, 0.1834, 0.0675]])
    """
    logs, present = log_labels(
        values, bins, scale, peak=LAPLACE, ends=ends, integrate=integrate, name="scale"
    )
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
        TypeError: If `values` is not a real tensor, or `bins` are not bins.
        ValueError: If the shape of `values` is not (N,), or `width` is too small.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, triangular_labels
        >>> triangular_labels(torch.tensor([2.0, 3.25]), Bins(1, 5), 2.0, normalize=False)
        tensor([[0.5000, 1.0000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.3750, 0.8750, 0.6250, 0.1250]])

    References:
        Chen et al., arXiv:2006.00202, Eq. 5 with l = `width` = 50, which is `normalize=False`.
    """
    check_bins(bins)
    check_tensor("values", values, "N", "real")
    values = upcast(values)
    centers = bins.centers_as(values.dtype, values.device)
    least = bins.widest_step / 2
    expected = f"a finite number above {least:g}, half of the widest step between centres"
    check_number("width", width, expected, lambda number: least < number < math.inf)
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


def one_hot_labels(values: Tensor, bins: Bins) -> Tensor:
    """All probability in the bin of the value.

    Args:
        values: Values (N,), real, in the unit of the bins. Those outside count as the end bins.
            NaN or infinite is missing.
        bins: The bins, K of them.

    Returns:
        Probabilities (N, K), float64 for float64 values and float32 otherwise. The row of a
        missing value is all zeros.

    Raises:
        TypeError: If `values` is not a real tensor, or `bins` are not bins.
        ValueError: If the shape of `values` is not (N,).

    Example:
        >>> import torch
        >>> from ldlcam import Bins, one_hot_labels
        >>> one_hot_labels(torch.tensor([2.0, 3.25]), Bins(1, 4))
        tensor([[0., 1., 0., 0.],
                [0., 0., 1., 0.]])
    """
    check_bins(bins)
    check_tensor("values", values, "N", "real")
    values = upcast(values)
    index = bins.index(values)[:, None]
    chosen = index == torch.arange(len(bins), device=values.device)
    return (chosen & values.isfinite()[:, None]).to(values.dtype)


def two_hot_labels(values: Tensor, bins: Bins) -> Tensor:
    """Linear interpolation between the two centres around the value: the label's mean is the value.

    Args:
        values: Values (N,), real, in the unit of the bins. Those outside of the end centres count
            as the end centres. NaN or infinite is missing.
        bins: The bins, K of them.

    Returns:
        Probabilities (N, K), float64 for float64 values and float32 otherwise. The row of a
        missing value is all zeros.

    Raises:
        TypeError: If `values` is not a real tensor, or `bins` are not bins.
        ValueError: If the shape of `values` is not (N,).

    Example:
        >>> import torch
        >>> from ldlcam import Bins, two_hot_labels
        >>> two_hot_labels(torch.tensor([2.0, 3.25]), Bins(1, 4))
        tensor([[0.0000, 1.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.7500, 0.2500]])
    """
    check_bins(bins)
    check_tensor("values", values, "N", "real")
    values = upcast(values)
    centers = bins.centers_as(values.dtype, values.device)
    present = values.isfinite()
    inside = torch.where(present, values, bins.first).clamp(bins.first, bins.last)[:, None]
    below = (torch.searchsorted(centers, inside, right=True) - 1).clamp(max=len(bins) - 2)
    share = (inside - centers[below]) / (centers[below + 1] - centers[below])
    labels = values.new_zeros(len(values), len(bins))
    labels = labels.scatter(1, below, 1 - share).scatter(1, below + 1, share)
    return torch.where(present[:, None], labels, 0.0)
