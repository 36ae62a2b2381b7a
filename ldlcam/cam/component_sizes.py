"""How large the components of a level set are: their areas, or the pixels they hold."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ldlcam.cam.lattices import Lattice, patch_starts, sample_pixels, take
from ldlcam.cam.patches import corner_areas, crossing_steps, patch_corners


class ComponentSizes(NamedTuple):
    """Sizes of components by their labels, which are nodes of a lattice.

    Attributes:
        sizes: Areas or numbers of pixels, (N, R * C); -1 where a node is outside.
        first: The number of the first pixel of each in reading order, (N, R * C), by which equal
            sizes are told apart; None where they are told apart by their labels.
    """

    sizes: Tensor
    first: Tensor | None = None

    def largest(self) -> Tensor:
        """Label of the largest component of each map, (N,); -1 where none is left."""
        most, label = self.sizes.max(1)
        if self.first is not None:
            label = self.first.masked_fill(self.sizes < most.unsqueeze(1), _NEVER).argmin(1)
        return torch.where(most < 0, -1, label)

    def without(self, labels: Tensor) -> "ComponentSizes":
        """The others, when one component of each map, (N,) labels, is taken away."""
        taken = labels.clamp(min=0).unsqueeze(1)
        return self._replace(sizes=self.sizes.scatter(1, taken, -1))


def component_areas(lattice: Lattice, inside: Tensor, labels: Tensor) -> ComponentSizes:
    """Areas of the components on the continuous surface, in pixels of the image."""
    patches = lattice.rows.diff(dim=1).unsqueeze(2) * lattice.columns.diff(dim=1).unsqueeze(1)
    areas = corner_areas(lattice.values) * patches
    sums = torch.zeros_like(lattice.values).flatten(1)
    for area, owners in zip(areas, patch_corners(labels), strict=True):
        sums = sums.scatter_add(1, owners.flatten(1), area.flatten(1))
    return ComponentSizes(_at_labels(sums, inside, labels))


def component_pixels(
    pixels: Tensor, lattice: Lattice, tops: Tensor, inside: Tensor, labels: Tensor
) -> ComponentSizes:
    """Numbers of pixels of the components on the pixel grid.

    The first pixel read lies in the component's top row, which is reached from a node on a column
    of the lattice; the columns of disjoint runs in one row are in the order of the runs.

    Args:
        pixels: As `count_pixels` gives them.
        lattice: Of the pixel grid.
        tops: How far up the set reaches around each node, (N, R, C).
        inside: Which nodes are inside, (N, R, C) bool.
        labels: Their components, (N, R, C).
    """
    owners = torch.where(inside[:, ::2], labels[:, ::2], labels[:, 1::2]).flatten(1)
    nodes = labels.flatten(1)
    counts = torch.zeros_like(nodes).scatter_add(1, owners, pixels.flatten(1))
    reading = tops.long() * _ROW + lattice.columns.unsqueeze(1)
    reading = reading.masked_fill(~inside, _NEVER).flatten(1)
    first = torch.full_like(nodes, _NEVER).scatter_reduce(1, nodes, reading, "amin")
    return ComponentSizes(_at_labels(counts, inside, labels), first)


def _at_labels(sums: Tensor, inside: Tensor, labels: Tensor) -> Tensor:
    """Sums where a node is its component's label and inside; -1 elsewhere."""
    nodes = torch.arange(sums.shape[1], device=sums.device)
    return sums.masked_fill((labels.flatten(1) != nodes) | ~inside.flatten(1), -1)


# Pixels in reading order are numbered row * _ROW + column.
_ROW = 2**31
_NEVER = 2**62


def count_pixels(
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
