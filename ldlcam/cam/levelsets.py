"""Boxes of an upsampled map's level sets, found without upsampling it."""

from typing import Literal

import torch
from torch import Tensor

from ldlcam._check import check_choice
from ldlcam.cam.boxes import Size, size_tensor
from ldlcam.cam.components import label_components
from ldlcam.cam.lattices import (
    Lattice,
    patch_starts,
    pixel_lattice,
    sample_pixels,
    surface_lattice,
)
from ldlcam.cam.patches import (
    corner_areas,
    crossing_shift,
    crossing_steps,
    patch_corners,
    pixels_joined,
    surface_joined,
)
from ldlcam.cam.regions import Regions, level_heatmaps


def levelset_boxes(
    heatmaps: Tensor,
    threshold: float | Tensor,
    size: Size,
    *,
    component: Literal["largest", "peak"] = "largest",
    snap: bool = False,
) -> Regions:
    """The box of the region where a heat map, upsampled bilinearly, reaches a threshold.

    It is the box of one connected component of the set {upsampled map >= threshold * maximum}, as
    upsampling, thresholding and labelling pixels would find it, but computed from the coarse map:
    time and memory do not grow with the number of pixels. Upsampling is bilinear with half-pixel
    centres, constant beyond the outermost samples; the maximum is the coarse map's own; the map
    is never clamped or normalized.

    With `snap=False` the map is the continuous surface and the box is exact in sub-pixels: the
    answer that pixels converge to as they get smaller. It is differentiable in the map and the
    threshold. With `snap=True` the map is the pixel grid: pixels whose centres reach the threshold,
    connected at sides and corners, and the box is theirs, in whole pixels, without gradient.

    Args:
        heatmaps: Heat maps, (N, h, w), floating; half precision is computed in float32.
        threshold: Fraction of the maximum, in (0, 1]: a float, or a tensor () or (N,). With
            `snap=False`, 1 gives the maximum's own box, without area unless it is at a border.
        size: (height, width) of the images in pixels, a pair or an (N, 2) tensor. The component
            with the most pixels (`snap=True`, `"largest"`) asks the tensor for the tallest image.
        component: `"largest"`, by area or number of pixels (of equally many pixels, the first in
            reading order), or `"peak"`, the one that holds the maximum.
        snap: Whether the answer is that of the pixel grid.

    Returns:
        Boxes, (N, 4) in pixels, at least float32. Maps that show no place (`valid_heatmaps`),
        thresholds of a tensor outside of (0, 1], and, with `snap=True`, regions that fall
        between the pixels have a box of zeros and are not valid.

    Raises:
        TypeError: If the maps are not a floating tensor.
        ValueError: If the shapes do not fit together, a float threshold is not in (0, 1], or the
            component is unknown.

    Example:
        >>> heatmaps = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
        >>> levelset_boxes(heatmaps, 0.5, (300, 300)).boxes
        tensor([[100., 100., 200., 200.]])
    """
    check_choice("component", component, ("largest", "peak"))
    maps, levels, valid = level_heatmaps(heatmaps, threshold)
    maps, levels = _scale_down(maps, levels)
    sizes = size_tensor(size, "size", maps).expand(len(maps), 2)
    if snap:
        maps, levels, sizes = maps.detach(), levels.detach(), sizes.long()
        lattice = pixel_lattice(maps, sizes)
    else:
        lattice = surface_lattice(maps, sizes)
    lattice = lattice._replace(values=lattice.values - levels[:, None, None])
    with torch.no_grad():
        inside = (lattice.values >= 0) & valid[:, None, None]
        labels = _label(lattice, inside, snap)
        if component == "peak":
            winner = _peak(lattice, labels)
        elif snap:
            tallest = int(size[:, 0].max()) if isinstance(size, Tensor) else size[0]
            winner = _most_pixels(maps, levels, sizes, tallest, lattice, inside, labels)
        else:
            winner = _largest_area(lattice, inside, labels)
        chosen = (labels == winner[:, None, None]) & inside
        valid = chosen.flatten(1).any(1)
    x1, x2 = _extent(lattice.values, lattice.columns, chosen, snap)
    y1, y2 = _extent(lattice.values.mT, lattice.rows, chosen.mT, snap)
    boxes = torch.stack((x1, y1, x2, y2), 1)
    return Regions(torch.where(valid[:, None], boxes, 0), valid)


def _scale_down(maps: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Maps and levels over a power of two near the maximum: the same level set, and exactly so.

    Products of values then neither overflow nor vanish.
    """
    _, exponents = torch.frexp(maps.detach().amax((1, 2)))
    scales = torch.exp2(-exponents.clamp(-100, 100).to(maps.dtype))
    return maps * scales[:, None, None], levels * scales


def _label(lattice: Lattice, inside: Tensor, snap: bool) -> Tensor:
    """Components of the level set, as labels of the lattice's nodes, (N, R, C).

    A patch is linear along rows and columns, so neighbouring nodes inside are joined, and each
    part of the set within a patch reaches one of its corners. What remains to be asked is whether
    two opposite corners are joined where the other two are outside.
    """
    corners = patch_corners(lattice.values)
    if snap:
        height = lattice.rows.diff(dim=1).to(lattice.values.dtype).unsqueeze(2)
        width = lattice.columns.diff(dim=1).to(lattice.values.dtype).unsqueeze(1)
        main = pixels_joined(corners, height, width)
        anti = pixels_joined(corners.mirrored(), height, width)
    else:
        main, anti = surface_joined(corners), surface_joined(corners.mirrored())
    return label_components(
        inside[:, :, :-1] & inside[:, :, 1:],
        inside[:, :-1] & inside[:, 1:],
        inside[:, :-1, :-1] & inside[:, 1:, 1:] & main,
        inside[:, :-1, 1:] & inside[:, 1:, :-1] & anti,
    )


def _peak(lattice: Lattice, labels: Tensor) -> Tensor:
    """Label of each map's highest node, (N,)."""
    highest = lattice.values.flatten(1).argmax(1, keepdim=True)
    return labels.flatten(1).gather(1, highest).squeeze(1)


def _largest_area(lattice: Lattice, inside: Tensor, labels: Tensor) -> Tensor:
    """Label of each map's component with the largest area, (N,)."""
    patches = lattice.rows.diff(dim=1).unsqueeze(2) * lattice.columns.diff(dim=1).unsqueeze(1)
    areas = corner_areas(lattice.values) * patches
    sums = torch.zeros_like(lattice.values).flatten(1)
    for area, owners in zip(areas, patch_corners(labels), strict=True):
        sums = sums.scatter_add(1, owners.flatten(1), area.flatten(1))
    return sums.masked_fill(~inside.flatten(1), -1).argmax(1)


def _most_pixels(
    maps: Tensor,
    levels: Tensor,
    sizes: Tensor,
    tallest: int,
    lattice: Lattice,
    inside: Tensor,
    labels: Tensor,
) -> Tensor:
    """Label of each map's component with the most pixels, (N,); of equals, the one read first.

    In each row of pixels the set's part of a patch is a run from its left end or from its right
    end. A run is counted and credited to the corner inside above or below that end.
    """
    rows = torch.arange(tallest, device=maps.device).expand(len(maps), -1)
    values = sample_pixels(maps, sizes, rows, lattice.columns) - levels[:, None, None]
    left, right = values[..., ::2], values[..., 1::2]
    starts = patch_starts(sizes[:, 1:], maps.shape[2]).unsqueeze(1)
    pixels = starts.diff(dim=2)
    steps = (pixels - 1).clamp(min=0).to(values.dtype)

    partly = crossing_steps(left, right, steps) + crossing_steps(right, left, steps)
    partly = (partly.long() + 1).minimum(pixels)
    from_left = torch.where(left >= 0, torch.where(right >= 0, pixels, partly), 0)
    from_right = torch.where((left < 0) & (right >= 0), partly, 0)
    runs = torch.stack((from_left, from_right), 3) * (rows < sizes[:, :1])[:, :, None, None]
    begins = torch.stack((starts[..., :-1].expand_as(left), starts[..., 1:] - from_right), 3)
    begins = begins + (rows * _READING)[:, :, None, None]

    seams = patch_starts(sizes[:, :1], maps.shape[1])[:, 1:-1].contiguous()
    above = 2 * torch.searchsorted(seams, rows.contiguous(), right=True)
    above = above.unsqueeze(2).expand(-1, -1, labels.shape[2])
    upper, lower = labels.gather(1, above), labels.gather(1, above + 1)
    owners = torch.where(inside.gather(1, above), upper, lower).flatten(1)

    runs, begins = runs.flatten(1), begins.flatten(1)
    counts = torch.zeros_like(labels).flatten(1).scatter_add(1, owners, runs)
    counts = counts.masked_fill(~inside.flatten(1), -1)
    begins = begins.masked_fill(runs == 0, _NEVER)
    first = torch.full_like(counts, _NEVER).scatter_reduce(1, owners, begins, "amin")
    first = first.masked_fill(counts < counts.amax(1, keepdim=True), _NEVER)
    return first.argmin(1)


# Pixels in reading order: row * _READING + column, in int64.
_READING = 2**31
_NEVER = 2**62


def _extent(values: Tensor, places: Tensor, chosen: Tensor, snap: bool) -> tuple[Tensor, Tensor]:
    """Where the chosen nodes' part of the set begins and ends across the columns, (N,) each.

    On a patch the edge of the set is monotone, so the set reaches furthest on a row of the lattice.
    """
    shift = crossing_steps if snap else crossing_shift
    places = places.to(values.dtype).unsqueeze(1)
    gaps = places.diff(dim=2)
    border = torch.zeros_like(values[..., :1])
    backward = torch.cat((border, shift(values[..., 1:], values[..., :-1], gaps)), 2)
    forward = torch.cat((shift(values[..., :-1], values[..., 1:], gaps), border), 2)
    first = torch.where(chosen, places - backward, torch.inf).amin((1, 2))
    last = torch.where(chosen, places + forward, -torch.inf).amax((1, 2))
    return first, last + 1 if snap else last
