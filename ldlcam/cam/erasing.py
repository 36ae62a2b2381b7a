"""Erasing what has been found, so that the next region can be."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from ldlcam._check import check_choice, check_number, check_same_length, check_tensor, is_number
from ldlcam.cam.boxes import proper_boxes

# What takes the place of pixels: a way of drawing values, or a constant.
Fill = Literal["random", "noise", "mean"] | float
_FILLS = ("random", "noise", "mean")


def erase_boxes(
    images: Tensor,
    boxes: Tensor,
    *,
    fill: Fill = "random",
    value_range: tuple[float, float] = (0.0, 1.0),
    seeds: Tensor | None = None,
) -> Tensor:
    """Images whose pixels inside a box are replaced.

    A pixel is inside when its centre lies in the half-open box. A box without area, or with NaN
    or infinities, leaves its image unchanged.

    Args:
        images: (N, C, H, W), floating.
        boxes: (N, 4) in pixels, floating.
        fill: What takes their place: `"random"`, one value for the whole box, the same in all
            channels; `"noise"`, a value for each pixel and channel; `"mean"`, the mean of the
            image's own channel, erased pixels included; or a constant.
        value_range: The lowest and highest random value.
        seeds: One seed per image, (N,), integer. An image's random values depend on its own seed
            and size only, not on the others in the batch or on the device. None draws seeds from
            torch's generator.

    Returns:
        (N, C, H, W), new; gradients reach the pixels that are kept and, through a `"mean"`, all
        others too.

    Raises:
        TypeError: If an argument is not a tensor of the expected kind.
        ValueError: If the shapes do not fit together, or the fill or the range is unknown.

    Example:
        >>> import torch
        >>> from ldlcam import erase_boxes
        >>> images = torch.ones(1, 1, 2, 3)
        >>> erase_boxes(images, torch.tensor([[0.0, 0.0, 2.0, 1.0]]), fill=0.0)
        tensor([[[[0., 0., 1.],
                  [1., 1., 1.]]]])

    References:
        Chen et al., arXiv 2006.00202, erase a region by "random values"; the authors' code draws
        one for the whole box, which is the default here.
    """
    check_tensor("images", images, "N C H W", "floating")
    check_tensor("boxes", boxes, "N 4", "floating")
    check_same_length(images=images, boxes=boxes)
    inside = _pixels_inside(boxes.to(images.device), images.shape[2], images.shape[3])
    filler = _filler(images, fill, value_range, seeds)
    return torch.where(inside.unsqueeze(1), filler, images)


def erase_masks(
    images: Tensor,
    masks: Tensor,
    *,
    fill: Fill = "random",
    value_range: tuple[float, float] = (0.0, 1.0),
    seeds: Tensor | None = None,
) -> Tensor:
    """Images whose pixels are replaced as far as a mask says.

    A mask of bool replaces pixels or keeps them. A soft mask mixes, `(1 - mask) * image + mask *
    fill`, and is differentiable: a region that is to be found by erasing can be learned. Values
    below 0 and NaN count as 0, and those above 1 as 1, so an image of an invalid heat map, or
    under an empty mask, stays as it is.

    Args:
        images: (N, C, H, W), floating.
        masks: (N, H, W), bool, or floating with values in [0, 1].
        fill: What takes their place: `"random"`, one value for the whole image, the same in all
            channels; `"noise"`, a value for each pixel and channel; `"mean"`, the mean of the
            image's own channel, erased pixels included; or a constant.
        value_range: The lowest and highest random value.
        seeds: One seed per image, (N,), integer, as for `erase_boxes`.

    Returns:
        (N, C, H, W), new, of the images' dtype.

    Raises:
        TypeError: If an argument is not a tensor of the expected kind.
        ValueError: If the shapes do not fit together, or the fill or the range is unknown.

    Example:
        >>> import torch
        >>> from ldlcam import erase_masks
        >>> images = torch.ones(1, 1, 1, 3)
        >>> erase_masks(images, torch.tensor([[[0.0, 0.5, 1.0]]]), fill=0.0)
        tensor([[[[1.0000, 0.5000, 0.0000]]]])
    """
    check_tensor("images", images, "N C H W", "floating")
    count, _, height, width = images.shape
    kind = "bool" if isinstance(masks, Tensor) and masks.dtype == torch.bool else "floating"
    check_tensor("masks", masks, "N H W", kind, N=count, H=height, W=width)
    filler = _filler(images, fill, value_range, seeds)
    masks = masks.to(images.device).unsqueeze(1)
    if kind == "bool":
        return torch.where(masks, filler, images)
    shares = masks.to(images.dtype).nan_to_num(0.0).clamp(0, 1)
    # A share of 0 of NaN would be NaN.
    kept = images.masked_fill((shares == 1) & ~images.isfinite(), 0)
    filler = torch.where((shares == 0) & ~filler.isfinite(), 0, filler)
    # Not lerp, which leaves nothing of a pixel where the filler is larger by many powers of two.
    return (1 - shares) * kept + shares * filler


def _pixels_inside(boxes: Tensor, height: int, width: int) -> Tensor:
    x1, y1, x2, y2 = boxes.unsqueeze(2).unbind(1)
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    columns = torch.arange(width, dtype=dtype, device=boxes.device) + 0.5
    rows = torch.arange(height, dtype=dtype, device=boxes.device) + 0.5
    across = (x1 <= columns) & (columns < x2)
    down = (y1 <= rows) & (rows < y2) & proper_boxes(boxes)[:, None]
    return down.unsqueeze(2) & across.unsqueeze(1)


def _filler(
    images: Tensor, fill: Fill, value_range: tuple[float, float], seeds: Tensor | None
) -> Tensor:
    """What goes into the boxes, of a shape that broadcasts to the images."""
    check_fill(fill, value_range)
    if not isinstance(fill, str):
        return images.new_tensor(fill)
    if fill == "mean":
        return images.mean((2, 3), keepdim=True)
    low, high = value_range
    count = images.shape[0]
    if seeds is None:
        seeds = torch.randint(2**62, (count,), device=images.device)
    check_tensor("seeds", seeds, "N", "integer", N=count)
    shape = (1, 1, 1) if fill == "random" else tuple(images.shape[1:])
    values = _uniform(seeds.to(images.device), shape)
    return (low + (high - low) * values).to(images.dtype)


def check_fill(fill: Fill, value_range: object) -> None:
    """Check what takes the place of what is erased, and the range of its random values.

    Raises:
        TypeError: If the fill is neither a number nor a name.
        ValueError: If it is an unknown name, or the range is no pair in order.
    """
    if isinstance(fill, str):
        check_choice("fill", fill, _FILLS)
    else:
        check_number("fill", fill, "a number or one of 'random', 'noise', 'mean'")
    pair = tuple(value_range) if isinstance(value_range, Iterable) else ()
    if not (len(pair) == 2 and all(map(is_number, pair)) and pair[0] <= pair[1]):
        raise ValueError(f"value_range: expected (lowest, highest), got {value_range!r}")


def _uniform(seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Values in [0, 1), (N, *shape), each a hash of its image's seed and its place.

    Unlike a generator's, they are the same on every device and in every batch.
    """
    places = torch.arange(torch.Size(shape).numel(), device=seeds.device)
    seeds = seeds.long()
    keys = _mix(_mix(seeds & _MASK) + (seeds >> 32 & _MASK))
    bits = _mix(keys[:, None] ^ _mix(places))
    return ((bits >> 8).float() / 2**24).view(seeds.shape[0], *shape)


_MASK = 0xFFFFFFFF


def _mix(bits: Tensor) -> Tensor:
    """A bijection of 32-bit integers that scatters them: shifts and multiplications, twice."""
    bits = bits & _MASK
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D & _MASK
    bits = (bits ^ (bits >> 15)) * 0x846CA68B & _MASK
    return bits ^ (bits >> 16)
