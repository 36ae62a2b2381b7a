"""Where an upsampled map has to be read so that its level sets are known everywhere.

Between four neighbouring samples a bilinearly upsampled map is a bilinear patch. A lattice holds
its values on rows and columns that cut it into such patches: at the samples themselves for the
continuous surface, at the first and last pixel between neighbouring samples for the pixel grid.
Beyond the outermost samples the map is constant across the border, and that is a patch too.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Lattice(NamedTuple):
    """Values of an upsampled map on some rows and columns.

    Attributes:
        values: (N, R, C).
        rows: Their places down the image in pixels, (N, R), or (1, R) where all images have one
            size; indices of pixels, or coordinates.
        columns: Their places across the image, (N, C) or (1, C).
    """

    values: Tensor
    rows: Tensor
    columns: Tensor


def surface_lattice(maps: Tensor, sizes: Tensor) -> Lattice:
    """The continuous surface: the samples and the image's borders, in pixel coordinates.

    Args:
        maps: (N, h, w).
        sizes: (height, width) of each image or of all, (N, 2) or (1, 2), of the maps' dtype.

    Returns:
        A lattice of (N, h + 2, w + 2) values.
    """
    height, width = maps.shape[1:]
    # Not F.pad: its "replicate" asks for a channel axis and has no backward in half precision.
    rows = torch.arange(-1, height + 1, device=maps.device).clamp(0, height - 1)
    columns = torch.arange(-1, width + 1, device=maps.device).clamp(0, width - 1)
    values = maps.index_select(1, rows).index_select(2, columns)
    return Lattice(values, _coordinates(sizes[:, :1], height), _coordinates(sizes[:, 1:], width))


def _coordinates(lengths: Tensor, samples: int) -> Tensor:
    """The samples' centres between the borders, (M, samples + 2), of images with (M, 1) lengths."""
    centers = torch.arange(-1, samples + 1, device=lengths.device).to(lengths) + 0.5
    return (centers * (lengths / samples)).clamp(min=0).minimum(lengths)


def pixel_lattice(maps: Tensor, sizes: Tensor) -> Lattice:
    """The pixel grid: the first and last row and column of pixels of each patch.

    Where a patch has no pixel, both are a neighbouring patch's.

    Args:
        maps: (N, h, w).
        sizes: (height, width) of each image or of all, (N, 2) or (1, 2), integer.

    Returns:
        A lattice of (N, 2 * (h + 1), 2 * (w + 1)) values.
    """
    rows = _patch_ends(patch_starts(sizes[:, :1], maps.shape[1]))
    columns = _patch_ends(patch_starts(sizes[:, 1:], maps.shape[2]))
    return Lattice(sample_pixels(maps, sizes, rows, columns), rows, columns)


def patch_starts(lengths: Tensor, samples: int) -> Tensor:
    """First pixel of each patch along an axis, and the end of the last, (M, samples + 2).

    Patch k lies between samples k - 1 and k; pixels at a sample belong to the patch behind it.
    """
    order = torch.arange(1, samples + 1, device=lengths.device)
    # A pixel p lies at (p + 1/2) * samples / length - 1/2 among the samples.
    starts = -((samples - (2 * order - 1) * lengths) // (2 * samples))
    starts = starts.clamp(min=0).minimum(lengths)
    return torch.cat((torch.zeros_like(lengths), starts, lengths), 1)


def _patch_ends(starts: Tensor) -> Tensor:
    """First and last pixel of each patch, (M, 2 * patches)."""
    last = (starts[:, 1:] - 1).clamp(min=0)
    first = starts[:, :-1].minimum(last)
    return torch.stack((first, last), 2).flatten(1)


def sample_pixels(maps: Tensor, sizes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Values of the upsampled maps at rows (M, R) and columns (M, C) of pixels.

    The places of pixels among the samples are computed in integers, so that a pixel on a sample
    has its very value, and a plateau stays one.

    Returns:
        (N, R, C), of the maps' dtype.
    """
    left, right, across = _neighbours(columns, sizes[:, 1:], maps.shape[2], maps.dtype)
    above, below, down = _neighbours(rows, sizes[:, :1], maps.shape[1], maps.dtype)
    first = take(maps, left, 2)
    maps = first + across.unsqueeze(1) * (take(maps, right, 2) - first)
    first = take(maps, above, 1)
    return first + down.unsqueeze(2) * (take(maps, below, 1) - first)


def _neighbours(
    pixels: Tensor, lengths: Tensor, samples: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """The samples on either side of pixels, (M, L), and how far from the first to the second."""
    # A pixel p lies at (p + 1/2) * samples / length - 1/2 among the samples.
    places = ((2 * pixels + 1) * samples - lengths).clamp(min=0)
    first = places // (2 * lengths)
    share = (places - first * 2 * lengths).to(dtype) / (2 * lengths).to(dtype)
    return first.clamp(max=samples - 1), (first + 1).clamp(max=samples - 1), share


def take(maps: Tensor, places: Tensor, axis: int) -> Tensor:
    """Rows (axis 1) or columns (axis 2) of maps, at places (N, L) of each or (1, L) of all."""
    if places.shape[0] == 1:
        return maps.index_select(axis, places[0])
    shape = list(maps.shape)
    shape[axis] = places.shape[1]
    return maps.gather(axis, places.unsqueeze(3 - axis).expand(shape))
