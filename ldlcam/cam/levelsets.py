"""Boxes of an upsampled map's level sets, found without upsampling it."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ldlcam._check import check_choice, check_count
from ldlcam.cam.boxes import Size, size_tensor
from ldlcam.cam.component_sizes import (
    ComponentSizes,
    component_areas,
    component_pixels,
    count_pixels,
)
from ldlcam.cam.components import label_components
from ldlcam.cam.lattices import Lattice, pixel_lattice, surface_lattice
from ldlcam.cam.patches import (
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
    connected at sides and corners, and the box is theirs, in whole pixels, without gradient. One
    that equals the threshold but for rounding may fall on either side of it.

    Components are labelled in as many rounds as their shapes need, so that any shape is labelled
    right. The device is asked after each; compiled or exported, the rounds are a loop of the graph.

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
        thresholds of a tensor outside of (0, 1], images of a tensor's size below 1 and, with
        `snap=True`, regions that fall between the pixels have a box of zeros and are not valid.

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
    found = _find(heatmaps, threshold, size, snap)
    winner = _peak(found) if component == "peak" else _measure(found, size).largest()
    return _region(found, winner)


def levelset_components(
    heatmaps: Tensor, threshold: float | Tensor, size: Size, k: int, *, snap: bool = False
) -> Regions:
    """The boxes of the k largest regions where an upsampled heat map reaches a threshold.

    As `levelset_boxes`, for several components of one level set: images may show more than one
    place.

    Args:
        heatmaps: Heat maps, (N, h, w), floating; half precision is computed in float32.
        threshold: Fraction of the maximum, in (0, 1]: a float, or a tensor () or (N,).
        size: (height, width) of the images in pixels, a pair or an (N, 2) tensor.
        k: How many regions, at least 1.
        snap: Whether the answer is that of the pixel grid.

    Returns:
        Boxes, (N, k, 4) in pixels, at least float32, and validity, (N, k): the largest first, by
        area or number of pixels (of equally many pixels, in reading order). Where an image has
        fewer than k regions, the last boxes are zeros and not valid.

    Raises:
        TypeError: If the maps are not a floating tensor.
        ValueError: If the shapes do not fit together, a float threshold is not in (0, 1], or k is
            not at least 1.

    Example:
        >>> import torch
        >>> from ldlcam import levelset_components
        >>> heatmaps = torch.tensor([[[1.0, 0.0, 0.0, 0.0, 0.8, 0.8]]])
        >>> boxes, valid = levelset_components(heatmaps, 0.4, (10, 60), k=3)
        >>> boxes
        tensor([[[40.,  0., 60., 10.],
                 [ 0.,  0., 11., 10.],
                 [ 0.,  0.,  0.,  0.]]])
        >>> valid
        tensor([[ True,  True, False]])
    """
    check_count("k", k)
    found = _find(heatmaps, threshold, size, snap)
    sizes = _measure(found, size)
    regions = []
    for _ in range(k):
        winner = sizes.largest()
        regions.append(_region(found, winner))
        sizes = sizes.without(winner)
    boxes, valid = (torch.stack(parts, 1) for parts in zip(*regions, strict=True))
    return Regions(boxes, valid)


class _LevelSet(NamedTuple):
    """Where upsampled maps reach their thresholds: the nodes of a lattice, and their components.

    Attributes:
        maps: The coarse maps, (N, h, w).
        levels: The thresholds' values, (N,).
        sizes: (height, width) of each image or of all, (N, 2) or (1, 2).
        snap: Whether the lattice is that of the pixel grid.
        lattice: Values relative to the thresholds, (N, R, C).
        inside: Which nodes are inside, (N, R, C) bool.
        labels: Their components, (N, R, C).
        starts: How far the set reaches around each node to the left and to the top, (N, R, C).
        ends: The same to the right and to the bottom.
    """

    maps: Tensor
    levels: Tensor
    sizes: Tensor
    snap: bool
    lattice: Lattice
    inside: Tensor
    labels: Tensor
    starts: tuple[Tensor, Tensor]
    ends: tuple[Tensor, Tensor]


def _find(heatmaps: Tensor, threshold: float | Tensor, size: Size, snap: bool) -> _LevelSet:
    maps, levels, valid = level_heatmaps(heatmaps, threshold)
    maps, levels = _scale_down(maps, levels)
    sizes = size_tensor(size, "size", maps)
    valid, sizes = valid & (sizes >= 1).all(1), sizes.clamp(min=1)
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
    return _LevelSet(maps, levels, sizes, snap, lattice, inside, labels, (x1, y1), (x2, y2))


def _region(found: _LevelSet, winner: Tensor) -> Regions:
    """The box of one component of each map, (N,) labels; -1 for none."""
    chosen = (found.labels == winner[:, None, None]) & found.inside
    valid = chosen.flatten(1).any(1)
    starts = [torch.where(chosen, reach, torch.inf).amin((1, 2)) for reach in found.starts]
    ends = [torch.where(chosen, reach, -torch.inf).amax((1, 2)) for reach in found.ends]
    boxes = torch.where(valid[:, None], torch.stack(starts + ends, 1), 0)
    return Regions(boxes, valid)


@torch.no_grad()
def _peak(found: _LevelSet) -> Tensor:
    """Label of each map's highest node, (N,)."""
    highest = found.lattice.values.flatten(1).argmax(1, keepdim=True)
    return found.labels.flatten(1).gather(1, highest).squeeze(1)


@torch.no_grad()
def _measure(found: _LevelSet, size: Size) -> ComponentSizes:
    if not found.snap:
        return component_areas(found.lattice, found.inside, found.labels)
    if isinstance(size, Tensor):
        # At least 1, also of no images.
        tallest = int(torch.cat((size.new_ones(1), size[:, 0])).max())
    else:
        tallest = size[0]
    pixels = count_pixels(found.maps, found.levels, found.sizes, tallest, found.lattice.columns)
    return component_pixels(pixels, found.lattice, found.starts[1], found.inside, found.labels)


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
