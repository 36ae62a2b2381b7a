"""Regions of heat maps on the pixel grid: masks above a threshold, and their boxes."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ldlcam._check import check_choice, check_fraction, check_tensor
from ldlcam._precision import upcast
from ldlcam.cam.boxes import check_size
from ldlcam.cam.components import label_mask
from ldlcam.cam.heatmaps import sanitize_heatmaps
from ldlcam.cam.lattices import sample_pixels


class Regions(NamedTuple):
    """One region per image, or k of them.

    Attributes:
        boxes: (N, 4) or (N, k, 4), half-open x1, y1, x2, y2 in pixels; zeros where there is no
            region.
        valid: (N,) or (N, k) bool, whether there is a region.
    """

    boxes: Tensor
    valid: Tensor


def threshold_mask(
    heatmaps: Tensor, threshold: float | Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """The pixels at which heat maps reach a fraction of their maxima.

    The maps are upsampled bilinearly with half-pixel centres first. The maximum is the map's own,
    before upsampling: what the pixels reach depends on where they happen to fall. Maps are not
    clamped at 0.

    Args:
        heatmaps: Heat maps, (N, h, w), floating; half precision is computed in float32.
        threshold: Fraction of the maximum, in (0, 1]: a float, or a tensor () or (N,).
        size: (height, width) of the masks; None keeps (h, w).

    Returns:
        Masks, (N, H, W) bool, all False for maps that show no place (`valid_heatmaps`) and
        for thresholds of a tensor outside of (0, 1].

    Raises:
        TypeError: If the maps are not a floating tensor.
        ValueError: If the shapes do not fit, or a float threshold is not in (0, 1].

    Example:
        >>> import torch
        >>> from ldlcam import threshold_mask
        >>> heatmaps = torch.tensor([[[0.0, 0.5], [0.2, 1.0]]])
        >>> threshold_mask(heatmaps, 0.5)
        tensor([[[False,  True],
                 [False,  True]]])

    References:
        Chen et al., arXiv 2006.00202, Eq. 4. There the threshold is a grey value of a coloured
        map; here it is a fraction of the map's maximum.
    """
    maps, levels, valid = level_heatmaps(heatmaps, threshold)
    if size is not None:
        maps = resize_heatmaps(maps, check_size("size", size))
    return (maps >= levels[:, None, None]) & valid[:, None, None]


def resize_heatmaps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Finite maps (N, h, w), upsampled bilinearly with half-pixel centres."""
    # Not F.interpolate, which rounds pixels of a plateau to below its value.
    sizes = torch.tensor((size,), device=maps.device)
    rows, columns = (torch.arange(side, device=maps.device)[None] for side in size)
    return sample_pixels(maps, sizes, rows, columns)


def level_heatmaps(heatmaps: Tensor, threshold: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Finite maps in float32 or float64, the value of each one's threshold, and validity."""
    maps, peaks, valid = sanitize_heatmaps(heatmaps)
    maps, peaks = upcast(maps), upcast(peaks)
    if isinstance(threshold, Tensor):
        if threshold.ndim != 0:
            check_tensor("threshold", threshold, "N", "floating", N=maps.shape[0])
        valid = valid & (threshold > 0) & (threshold <= 1)
        levels = torch.where(valid, threshold.to(peaks.dtype), 1) * peaks
    else:
        check_fraction("threshold", threshold)
        levels = threshold * peaks
    return maps, levels, valid


def mask_boxes(masks: Tensor, *, component: Literal["largest", "all"] = "largest") -> Regions:
    """The box of each mask's largest component, or of all its pixels.

    Pixels that touch at a side or a corner are connected. Of equally large components the one
    that comes first in reading order counts. On the CPU, components are found by scipy; compiled
    and on other devices, by torch alone.

    Args:
        masks: (N, H, W) bool.
        component: `"largest"` (most pixels) or `"all"` (every pixel of the mask).

    Returns:
        Boxes in whole pixels, (N, 4) float32, half-open: a single pixel's box has area 1. An
        empty mask has a box of zeros and is not valid.

    Raises:
        TypeError: If the masks are not bool.
        ValueError: If they are not (N, H, W), or the component is unknown.

    Example:
        >>> import torch
        >>> from ldlcam import mask_boxes
        >>> mask = torch.zeros(1, 5, 6, dtype=torch.bool)
        >>> mask[0, 1:3, 2:5] = True
        >>> mask[0, 4, 0] = True
        >>> mask_boxes(mask).boxes
        tensor([[2., 1., 5., 3.]])
    """
    check_tensor("masks", masks, "N H W", "bool")
    check_choice("component", component, ("largest", "all"))
    if component == "largest":
        by_scipy = masks.device.type == "cpu" and not torch.compiler.is_compiling()
        masks = _largest_on_cpu(masks) if by_scipy else _largest(masks)
    x1, x2, across = _extent(masks.any(1))
    y1, y2, _ = _extent(masks.any(2))
    boxes = torch.stack((x1, y1, x2, y2), 1).float()
    return Regions(torch.where(across[:, None], boxes, 0), across)


def _extent(used: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First used place, the one after the last, and whether there is any, of (N, L) bool."""
    if used.shape[1] == 0:
        nowhere = torch.zeros(len(used), dtype=torch.long, device=used.device)
        return nowhere, nowhere, used.any(1)
    marks = used.to(torch.uint8)
    last = used.shape[1] - marks.flip(1).argmax(1)
    return marks.argmax(1), last, used.any(1)


def _largest(masks: Tensor) -> Tensor:
    """Masks of the largest components, in torch."""
    labels = label_mask(masks).flatten(1)
    inside = masks.flatten(1)
    areas = torch.zeros_like(labels).scatter_add(1, labels, inside.long())
    winner = areas.argmax(1, keepdim=True)
    return ((labels == winner) & inside).view_as(masks)


def _largest_on_cpu(masks: Tensor) -> Tensor:
    """Masks of the largest components, by scipy."""
    import numpy as np
    from scipy import ndimage

    corners = np.ones((3, 3))
    largest = np.zeros(tuple(masks.shape), dtype=bool)
    for mask, out in zip(masks.numpy(), largest, strict=True):
        labels, count = ndimage.label(mask, corners)
        if count == 1:
            out[:] = mask
        elif count > 1:
            areas = np.bincount(labels.ravel())
            areas[0] = 0
            out[:] = labels == areas.argmax()
    return torch.from_numpy(largest)
