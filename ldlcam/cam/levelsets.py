"""Boxes of an upsampled map's level sets, found without upsampling it."""

from typing import Literal

import torch
import torch.nn.functional as F
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
    take,
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
    time and memory do not grow with the image, save with its height where pixels are counted.
    Upsampling is bilinear with half-pixel centres, constant beyond the outermost samples; the
    maximum is the coarse map's own; the map is never clamped or normalized.

    With `snap=False` the map is the continuous surface and the box is exact in sub-pixels: the
    answer that pixels converge to as they get smaller. It is differentiable in the map and the
    threshold. With `snap=True` the map is the pixel grid: pixels whose centres reach the threshold,
    connected at sides and corners, and the box is theirs, in whole pixels, without gradient.

    Components are labelled in as many rounds as their shapes need, and the device is asked after
    each: any shape is labelled right, and `torch.compile` breaks the graph there.

    Args:
        heatmaps: Heat maps, (N, h, w), floating; half precision is computed in float32.
        threshold: Fraction of the maximum, in (0, 1]: a float, or a tensor () or (N,). With
            `snap=False`, 1 gives the maximum's own box, without area unless it is at a border.
        size: (height, width) of the images in pixels, a pair or an (N, 2) tensor. The component
            with the most pixels (`snap=True`, `"largest"`) asks the tensor for the tallest image.
        component: `"largest"`, by area or number of pixels (of equally many pixels, the first in
            reading order), or `"peak"`, the one that holds the maximum (of the samples,
            or of the pixels).
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
        >>> import torch
        >>> from ldlcam import levelset_boxes
        >>> heatmaps = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
        >>> levelset_boxes(heatmaps, 0.5, (300, 300)).boxes
        tensor([[100., 100., 200., 200.]])
    """
    check_choice("component", component, ("largest", "peak"))
    maps, levels, valid = level_heatmaps(heatmaps, threshold)
    maps, levels = _scale_down(maps, levels)
    sizes = size_tensor(size, "size", maps)
    if snap:
        maps, levels, sizes = maps.detach(), levels.detach(), sizes.long()
        lattice = pixel_lattice(maps, sizes)
    else:
        lattice = surface_lattice(maps, sizes)
    lattice = lattice._replace(values=lattice.values - levels[:, None, None])
    x1, x2 = _reach(lattice.values, lattice.columns, snap)
    y1, y2 = (reach.mT for reach in _reach(lattice.values.mT, lattice.rows, snap))
    with torch.no_grad():
        inside = (lattice.values >= 0) & valid[:, None, None]
        labels = _label(lattice, inside, snap)
        if component == "peak":
            winner = _peak(lattice, labels)
        elif snap:
            tallest = int(size[:, 0].max()) if isinstance(size, Tensor) else size[0]
            pixels = _count_pixels(maps, levels, sizes, tallest, lattice.columns)
            winner = _most_pixels(pixels, lattice, y1, inside, labels)
        else:
            winner = _largest_area(lattice, inside, labels)
        chosen = (labels == winner[:, None, None]) & inside
        valid = chosen.flatten(1).any(1)
    starts = [torch.where(chosen, reach, torch.inf).amin((1, 2)) for reach in (x1, y1)]
    ends = [torch.where(chosen, reach, -torch.inf).amax((1, 2)) for reach in (x2, y2)]
    boxes = torch.where(valid[:, None], torch.stack(starts + ends, 1), 0)
    return Regions(boxes, valid)


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
    pixels: Tensor, lattice: Lattice, tops: Tensor, inside: Tensor, labels: Tensor
) -> Tensor:
    """Label of each map's component with the most pixels, (N,); of equals, the one read first.

    The first pixel read lies in the component's top row, which is reached from a node on a column
    of the lattice; the columns of disjoint runs in one row are in the order of the runs.
    """
    owners = torch.where(inside[:, ::2], labels[:, ::2], labels[:, 1::2]).flatten(1)
    nodes = labels.flatten(1)
    counts = torch.zeros_like(nodes).scatter_add(1, owners, pixels.flatten(1))
    counts = counts.masked_fill(~inside.flatten(1), -1)
    reading = tops.long() * _ROW + lattice.columns.unsqueeze(1)
    reading = reading.masked_fill(~inside, _NEVER).flatten(1)
    first = torch.full_like(nodes, _NEVER).scatter_reduce(1, nodes, reading, "amin")
    return first.masked_fill(counts < counts.amax(1, keepdim=True), _NEVER).argmin(1)


# Pixels in reading order are numbered row * _ROW + column.
_ROW = 2**31
_NEVER = 2**62


def _count_pixels(
    maps: Tensor, levels: Tensor, sizes: Tensor, tallest: int, columns: Tensor
) -> Tensor:
    """Pixels of the level set in each patch, connected to its left and right side.

    In each row of pixels, the set's part of a patch is a run from the left side or from the right.
    A run from side to side is counted with the left.

    Returns:
        (N, patches down, 2 * patches across), int64, left and right in turn.
    """
    rows = torch.arange(tallest, device=maps.device).unsqueeze(0)
    values = sample_pixels(maps, sizes, rows, columns) - levels[:, None, None]
    left, right = values[..., ::2], values[..., 1::2]
    width = patch_starts(sizes[:, 1:], maps.shape[2]).diff(dim=1).to(values.dtype).unsqueeze(1)
    higher, lower = torch.maximum(left, right), torch.minimum(left, right)
    partly = crossing_steps(higher, lower, (width - 1).clamp(min=0)) + 1
    runs = torch.where(lower >= 0, width, torch.where(higher >= 0, partly, 0)).to(torch.int32)
    from_left = torch.where(left >= 0, runs, 0)
    sides = torch.stack((from_left, runs - from_left), 3).flatten(2)
    above = F.pad(sides.cumsum(1, dtype=torch.int32), (0, 0, 1, 0))
    return take(above, patch_starts(sizes[:, :1], maps.shape[1]), 1).diff(dim=1).long()


def _reach(values: Tensor, places: Tensor, snap: bool) -> tuple[Tensor, Tensor]:
    """Where the set begins and ends around each node inside, along its row, (N, R, C) each.

    On a patch the edge of the set is monotone, so the set reaches furthest on a row or column of
    the lattice. The end is that of the last pixel, for the pixel grid.
    """
    shift = crossing_steps if snap else crossing_shift
    places = places.to(values.dtype).unsqueeze(1)
    gaps = places.diff(dim=2)
    border = torch.zeros_like(values[..., :1])
    backward = torch.cat((border, shift(values[..., 1:], values[..., :-1], gaps)), 2)
    forward = torch.cat((shift(values[..., :-1], values[..., 1:], gaps), border), 2)
    return places - backward, places + forward + (1 if snap else 0)
