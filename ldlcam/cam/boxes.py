"""Boxes: half-open x1, y1, x2, y2 in float pixels from the image's top-left corner."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ldlcam._check import check_number, check_same_length, check_tensor, is_count
from ldlcam._precision import upcast

Size = Sequence[int] | Tensor
"""(height, width) in pixels: a pair for all images, or an (N, 2) tensor of one pair each."""


def pad_boxes(boxes: Tensor, margin: float) -> Tensor:
    """Boxes enlarged on every side by a fraction of their own width and height.

    Args:
        boxes: (N, 4) in pixels, floating.
        margin: Fraction of the width added left and right, and of the height above and below,
            above -0.5; negative values shrink.

    Returns:
        (N, 4) in pixels; they may reach beyond the image (see `clip_boxes`).

    Raises:
        TypeError: If the boxes are not a floating tensor, or the margin is not a number.
        ValueError: If they are not (N, 4), or the margin is not finite and above -0.5.

    Example:
        >>> import torch
        >>> from ldlcam import pad_boxes
        >>> pad_boxes(torch.tensor([[10.0, 20.0, 20.0, 40.0]]), 0.1)
        tensor([[ 9., 18., 21., 42.]])
    """
    check_tensor("boxes", boxes, "N 4", "floating")
    expected = "a finite number above -0.5"
    check_number("margin", margin, expected, lambda number: -0.5 < number < math.inf)
    starts, ends = boxes[:, :2], boxes[:, 2:]
    border = margin * (ends - starts)
    return torch.cat((starts - border, ends + border), 1)


def clip_boxes(boxes: Tensor, size: Size) -> Tensor:
    """Boxes cut at the image's borders.

    A box wholly outside becomes one without area, on the border nearest to it.

    Args:
        boxes: (N, 4) in pixels, floating.
        size: (height, width) of the images, a pair or an (N, 2) tensor, where less than 1 counts
            as 1.

    Returns:
        (N, 4) in pixels, within the image.

    Raises:
        TypeError: If the boxes are not a floating tensor.
        ValueError: If they are not (N, 4) or the size is not a size.

    Example:
        >>> import torch
        >>> from ldlcam import clip_boxes
        >>> clip_boxes(torch.tensor([[-5.0, 2.0, 30.0, 8.0]]), (10, 20))
        tensor([[ 0.,  2., 20.,  8.]])
    """
    check_tensor("boxes", boxes, "N 4", "floating")
    limits = _width_height(size, "size", boxes)
    return torch.minimum(boxes.clamp(min=0), limits)


def scale_boxes(boxes: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """Boxes of one image size carried over to another, such as from network input to original.

    Args:
        boxes: (N, 4) in pixels of `from_size`, floating.
        from_size: (height, width) the boxes are in, a pair or an (N, 2) tensor, where less than 1
            counts as 1.
        to_size: (height, width) they are wanted in, likewise.

    Returns:
        (N, 4) in pixels of `to_size`.

    Raises:
        TypeError: If the boxes are not a floating tensor.
        ValueError: If they are not (N, 4) or a size is not a size.

    Example:
        >>> import torch
        >>> from ldlcam import scale_boxes
        >>> scale_boxes(torch.tensor([[0.0, 10.0, 20.0, 30.0]]), (100, 100), (200, 50))
        tensor([[ 0., 20., 10., 60.]])
    """
    check_tensor("boxes", boxes, "N 4", "floating")
    before = _width_height(from_size, "from_size", boxes)
    after = _width_height(to_size, "to_size", boxes)
    return boxes * (after / before)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each box of `a` with the box of `b` beside it.

    Boxes are half-open: a box and itself give 1, boxes that only touch give 0. A box without area
    (its end not beyond its start) or with NaN gives 0.

    Args:
        a: (N, 4) in pixels, floating.
        b: (N, 4) in pixels, floating.

    Returns:
        (N,) in [0, 1]; float32 for half precision, in which areas would overflow.

    Raises:
        TypeError: If one is not a floating tensor.
        ValueError: If they are not both (N, 4).

    Example:
        >>> import torch
        >>> from ldlcam import box_iou
        >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> box_iou(a, torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
        tensor([0.3333])
    """
    check_tensor("a", a, "N 4", "floating")
    check_tensor("b", b, "N 4", "floating")
    check_same_length(a=a, b=b)
    a, b = upcast(a), upcast(b)
    proper = proper_boxes(a) & proper_boxes(b)
    # Unit boxes stand in for improper ones, so that neither value nor gradient is NaN.
    unit = torch.tensor([0, 0, 1, 1], device=a.device)
    a, b = (torch.where(proper[:, None], boxes, unit.to(boxes.dtype)) for boxes in (a, b))
    starts, ends = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    extents = torch.stack((ends - starts, a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]))
    # Over the power of two below the larger, which changes no digit, areas have room.
    larger = extents[1:].detach().amax(0)
    extents = extents.clamp(min=0) / (larger / (2 * torch.frexp(larger).mantissa))
    intersection, area, other = extents.prod(2)
    # Of lines across each other, neither has an area left.
    union = (area + other - intersection).clamp(min=torch.finfo(area.dtype).tiny)
    return torch.where(proper, intersection / union, 0)


def crop_to_image(
    points: Tensor, crops: Tensor, size: tuple[int, int], *, keep_aspect: bool = False
) -> Tensor:
    """Points or boxes found in a crop, carried back to the image it was cut from.

    The inverse of what `crop_and_resize` does with coordinates. For a crop that it replaced by
    the whole image, put the whole image in first (`fill_boxes`).

    Args:
        points: Points (x, y) or boxes (x1, y1, x2, y2) in pixels of the crop, (N, 2), (N, 4),
            (N, K, 2) or (N, K, 4), floating.
        crops: The boxes the crops were cut from, (N, 4) in pixels of the image.
        size: (height, width) the crops were resized to.
        keep_aspect: As it was given to `crop_and_resize`.

    Returns:
        The same points or boxes in pixels of the image, in the same shape.

    Raises:
        TypeError: If an argument is not a floating tensor.
        ValueError: If the shapes are not the stated ones.

    Example:
        >>> import torch
        >>> from ldlcam import crop_to_image
        >>> crops = torch.tensor([[100.0, 200.0, 300.0, 400.0]])
        >>> crop_to_image(torch.tensor([[28.0, 0.0]]), crops, (56, 56))
        tensor([[200., 200.]])
    """
    check_tensor("points", points, "", "floating")
    check_tensor("crops", crops, "N 4", "floating")
    if points.ndim not in (2, 3) or points.shape[-1] not in (2, 4):
        raise ValueError(
            f"points: expected shape (N, 2), (N, 4), (N, K, 2) or (N, K, 4), "
            f"got {tuple(points.shape)}"
        )
    check_same_length(points=points, crops=crops)
    if keep_aspect:
        crops = match_aspect(crops, size)
    height, width = check_size("size", size)
    starts, ends = crops[:, :2], crops[:, 2:]
    scales = (ends - starts) / crops.new_tensor((width, height))
    repeats = points.shape[-1] // 2
    starts, scales = starts.repeat(1, repeats), scales.repeat(1, repeats)
    if points.ndim == 3:
        starts, scales = starts.unsqueeze(1), scales.unsqueeze(1)
    return starts + points * scales


def match_aspect(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes enlarged about their centres, in one direction, to the aspect ratio of a size.

    Args:
        boxes: (N, 4) in pixels, floating.
        size: (height, width) whose ratio is wanted.

    Returns:
        (N, 4) in pixels; they may reach beyond the image.

    Raises:
        TypeError: If the boxes are not a floating tensor.
        ValueError: If they are not (N, 4) or the size is not a size.

    Example:
        >>> import torch
        >>> from ldlcam import match_aspect
        >>> match_aspect(torch.tensor([[10.0, 10.0, 20.0, 30.0]]), (64, 64))
        tensor([[ 5., 10., 25., 30.]])
    """
    check_tensor("boxes", boxes, "N 4", "floating")
    height, width = check_size("size", size)
    extents = boxes[:, 2:] - boxes[:, :2]
    zoom = (extents / extents.new_tensor((width, height))).amax(1, keepdim=True)
    border = (zoom * zoom.new_tensor((width, height)) - extents) / 2
    return torch.cat((boxes[:, :2] - border, boxes[:, 2:] + border), 1)


def fill_boxes(boxes: Tensor, size: Size) -> Tensor:
    """Boxes with the whole image in place of those that are not proper.

    Args:
        boxes: (N, 4) in pixels, floating; no area, NaN and infinities, also as sides, are
            improper.
        size: (height, width) of the images, a pair or an (N, 2) tensor, where less than 1 counts
            as 1.

    Returns:
        (N, 4) in pixels, all of them proper.

    Raises:
        TypeError: If the boxes are not a floating tensor.
        ValueError: If they are not (N, 4) or the size is not a size.

    Example:
        >>> import torch
        >>> from ldlcam import fill_boxes
        >>> fill_boxes(torch.zeros(1, 4), (480, 640))
        tensor([[  0.,   0., 640., 480.]])
    """
    check_tensor("boxes", boxes, "N 4", "floating")
    limits = _width_height(size, "size", boxes)
    whole = torch.cat((torch.zeros_like(limits[:, 2:]), limits[:, 2:]), 1)
    return torch.where(proper_boxes(boxes)[:, None], boxes, whole)


def proper_boxes(boxes: Tensor) -> Tensor:
    """Which boxes are finite, as are their sides, and have an area, (N,) bool."""
    boxes = upcast(boxes)
    extents = boxes[:, 2:] - boxes[:, :2]
    return ((extents > 0) & extents.isfinite()).all(1)


def check_size(name: str, size: object) -> tuple[int, int]:
    """The (height, width) given as an argument, checked."""
    sides = size if isinstance(size, (tuple, list, torch.Size)) else ()
    if len(sides) == 2 and all(is_count(side) for side in sides):
        return sides[0], sides[1]
    raise ValueError(f"{name}: expected (height, width), whole numbers of at least 1, got {size!r}")


def size_tensor(size: Size, name: str, like: Tensor) -> Tensor:
    """Heights and widths, (1, 2) for a pair and (N, 2) for one size per image, as `like` is."""
    if isinstance(size, Tensor):
        check_tensor(name, size, "N 2", "real", N=like.shape[0])
        return size.to(like)
    # Not a tensor of the pair: sides that a compiler leaves open would be closed.
    return torch.stack([like.new_full((1,), side) for side in check_size(name, size)], 1)


def _width_height(size: Size, name: str, like: Tensor) -> Tensor:
    """Sizes as the boxes that go with them: (1 or N, 4) of width, height, width, height."""
    return size_tensor(size, name, like).clamp(min=1).flip(1).repeat(1, 2)
