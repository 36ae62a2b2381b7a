"""The level set on one bilinear patch: how far it reaches, what it joins, how large it is.

A patch is known by its values at four corners, relative to the threshold: at least 0 is inside.
Every function names them from one corner, `near`: `right` and `below` are the corners beside it in
the same row and column, whichever way they lie, and `far` is the opposite one.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Corners(NamedTuple):
    """Values at the corners of patches, seen from one of them; all of one shape."""

    near: Tensor
    right: Tensor
    below: Tensor
    far: Tensor

    def mirrored(self) -> "Corners":
        """The same patches, seen from the corner beside `near` in the same row."""
        return Corners(self.right, self.near, self.far, self.below)


def patch_corners(nodes: Tensor) -> Corners:
    """Corners of all patches of a lattice from the upper left one, four of (N, R - 1, C - 1)."""
    return Corners(nodes[:, :-1, :-1], nodes[:, :-1, 1:], nodes[:, 1:, :-1], nodes[:, 1:, 1:])


def crossing_shift(inner: Tensor, outer: Tensor, distance: Tensor) -> Tensor:
    """How far the set reaches from a corner inside towards one outside, up to their distance.

    It is 0 for other pairs, and so is its gradient.
    """
    crossing = (inner >= 0) & (outer < 0)
    drop = torch.where(crossing, inner - outer, 1)
    return distance * (torch.where(crossing, inner, 0) / drop)


def crossing_steps(inner: Tensor, outer: Tensor, distance: Tensor) -> Tensor:
    """The same in whole pixel steps: how many pixels after the inner one are inside.

    Multiplying first leaves one rounding, so that a pixel at the threshold itself is not lost.
    """
    crossing = (inner >= 0) & (outer < 0)
    drop = torch.where(crossing, inner - outer, 1)
    steps = (distance * torch.where(crossing, inner, 0) / drop).floor()
    # The outer pixel is outside, also where the quotient is rounded up to 1.
    return steps.minimum((distance - 1).clamp(min=0))


def surface_joined(corners: Corners) -> Tensor:
    """Whether `near` and `far`, both inside, are joined within their patch.

    They are where the saddle point is inside, or another corner is. With values relative to the
    threshold, that is a comparison of two products.
    """
    return corners.near * corners.far >= corners.right * corners.below


def pixels_joined(corners: Corners, height: Tensor, width: Tensor) -> Tensor:
    """Whether `near` and `far`, both inside, are joined by pixels touching at sides or corners.

    From near's row to the saddle, the pixels inside begin at near's column; after it, they end at
    far's. So the two are joined where the last row before the saddle and the first one after it
    both have pixels inside, and those of one touch those of the other.

    Args:
        corners: Values at the corner pixels, where `right` and `below` are outside.
        height: Pixel steps from the upper to the lower corners.
        width: Pixel steps from the left to the right corners.
    """
    near, right, below, far = corners
    fall, rise = near - right, far - below
    total = torch.where(fall + rise == 0, 1, fall + rise)
    before = (height * fall / total).floor().clamp(min=0).minimum((height - 1).clamp(min=0))
    after = before + 1
    # Values at both ends of the two rows, times the height: the factor changes no crossing.
    first = near * (height - before) + below * before
    first_end = right * (height - before) + far * before
    second = near * (height - after) + below * after
    second_end = right * (height - after) + far * after
    forward = torch.where(first_end >= 0, width, crossing_steps(first, first_end, width))
    backward = torch.where(second >= 0, width, crossing_steps(second_end, second, width))
    return (first >= 0) & (second_end >= 0) & (forward + 1 + backward >= width)


def corner_areas(nodes: Tensor) -> Tensor:
    """The set's area in each patch, as a fraction of it, shared out among the corners inside.

    Corners that are joined within the patch share an area; of opposite corners that are not, each
    has its own. A corner outside has 0.

    Args:
        nodes: Values of a lattice relative to the threshold, (N, R, C).

    Returns:
        (4, N, R - 1, C - 1): upper left, upper right, lower left, lower right corner.
    """
    tl, tr, bl, br = patch_corners(nodes)
    near, right, below, far = Corners(
        torch.stack((tl, tr, bl, br)),
        torch.stack((tr, tl, br, bl)),
        torch.stack((bl, br, tl, tr)),
        torch.stack((br, bl, tr, tl)),
    )
    joined = near * far >= right * below
    is_near, is_right, is_below, is_far = near >= 0, right >= 0, below >= 0, far >= 0

    # One corner cut off from the rest of the set, or the rest of the set cut off by a corner.
    island = is_near & ~is_right & ~is_below & ~(is_far & joined)
    notch = ~is_near & is_right & is_below
    # Two corners on one side of the patch, an upright or a level one.
    upright = is_near & is_below & ~is_right & ~is_far
    side = upright | (is_near & is_right & ~is_below & ~is_far)
    along, across = torch.where(upright, below, right), torch.where(upright, right, below)

    straight, bend = _corner_cut(near, right, below, far)
    side_straight, side_bend = _side_cut(near, along, across, far)
    straight = torch.where(side, side_straight, straight)
    cut = straight * _bent_half(torch.where(side, side_bend, bend))
    rest = 1 - torch.where(notch, cut, 0).sum(0)
    among = is_near.sum(0).clamp(min=1)
    area = torch.where(island | side, cut, rest / among)
    return torch.where(is_near, area, 0)


def _corner_cut(near: Tensor, right: Tensor, below: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Of the area between a corner and the hyperbola that parts it from both of its neighbours.

    Returns:
        Twice the area if the hyperbola were a straight line, and how it is bent (`_bent_half`).
    """
    across, down = (near - right).abs(), (near - below).abs()
    across, down = across.clamp(min=_TINY), down.clamp(min=_TINY)
    x, y = near.abs() / across, near.abs() / down
    return x * y, (right / across) * (below / down) - (near / across) * (far / down)


def _side_cut(near: Tensor, along: Tensor, across: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Of near's part of the area between a side and the hyperbola that parts it from the other."""
    first, second = (near - across).clamp(min=_TINY), (along - far).clamp(min=_TINY)
    return near / first, second / first


_TINY = 1e-20


def _bent_half(bend: Tensor) -> Tensor:
    """Integral of (1 - z) / (1 - (1 - bend) z) over z from 0 to 1: 1/2 for a straight line."""
    bend = bend.clamp(0.0, 1e9)
    rest = 1 - bend
    series = torch.zeros_like(rest)
    for order in reversed(range(14)):
        series = series * rest + 1 / ((order + 1) * (order + 2))
    straight = rest.abs() < 0.25
    closed = (rest + torch.xlogy(bend, bend)) / torch.where(straight, 1, rest).square()
    return torch.where(straight, series, closed)
