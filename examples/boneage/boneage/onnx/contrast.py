"""Evening out the contrast as `boneage.data.contrast` does, in tensors of any size."""

from __future__ import annotations

from typing import cast

import torch
from ldlcam import crop_and_resize
from torch import Tensor


def even_contrast(image: Tensor, how: str) -> Tensor:
    """Stretch a radiograph's contrast so that films of any exposure look alike.

    Args:
        image: Shape (H, W), float32.
        how: `"none"`, `"percentile"` or `"local"`: see `boneage.data.contrast`.

    Returns:
        Shape (H, W), float32, in [0, 1].
    """
    if how == "none":
        return image.clamp(0, 1)
    low, high = _range(image)
    constant = low == high
    span = torch.where(constant, 1, high - low).float()
    even = (image - low.float()) / span if how == "percentile" else _even_locally(image, span)
    return torch.where(constant, 0.5, even.clamp(0, 1))


def _range(image: Tensor) -> tuple[Tensor, Tensor]:
    """From dark to bright without the outermost 2%, or all of it where the rest is constant."""
    step = _step(image, 400)
    ordered = image[::step, ::step].flatten().sort().values
    last = ordered.shape[0] - 1
    places = torch.tensor([0.02, 0.98], dtype=torch.float64) * last
    below = places.long()
    start, end = ordered[below].double(), ordered[(below + 1).clamp(max=last)].double()
    low, high = (start + (places - below) * (end - start)).unbind()
    constant = low == high
    return torch.where(constant, image.min(), low), torch.where(constant, image.max(), high)


def _even_locally(image: Tensor, span: Tensor) -> Tensor:
    step = _step(image, 100)
    height, width = image.shape
    # In float64, in which scipy and Pillow add: greys that are rounded next then are the same.
    small = _means(height, step) @ image.double() @ _means(width, step).mT
    longer = _longer(small)
    mean = _blurred(small, longer, 12)
    deviation = _blurred((small - mean).square(), longer, 20).sqrt()
    corner = [torch.full((1,), side, dtype=torch.float64) / step for side in (width, height)]
    box = torch.stack([*(torch.zeros_like(side) for side in corner), *corner], 1)
    mean, deviation = (
        crop_and_resize(part[None, None], box, (height, width))[0, 0].float()
        for part in (mean, deviation)
    )
    return 0.5 + 0.2 * (image - mean) / (deviation + 0.025 * span)


def _step(image: Tensor, side: int) -> int:
    return cast(int, torch.sym_max(1, _longer(image) // side))


def _longer(image: Tensor) -> int:
    # Not `max`, which would ask which side of the traced image it is.
    return cast(int, torch.sym_max(image.shape[0], image.shape[1]))


def _means(length: int, step: int) -> Tensor:
    """What takes the means of `step` pixels each, the last of what is left: (L / step, L)."""
    owners = torch.arange(length) // step
    owned = owners == torch.arange((length + step - 1) // step)[:, None]
    return owned / owned.sum(1, keepdim=True, dtype=torch.float64)


def _blurred(image: Tensor, longer: int, percent: int) -> Tensor:
    """Under a Gaussian of a standard deviation in percent of the longer side's length."""
    rows, columns = (_gaussian(length, longer, percent) for length in image.shape)
    return rows @ image @ columns.mT


def _gaussian(length: int, longer: int, percent: int) -> Tensor:
    """What blurs along one axis, (L, L), cut at four deviations; the border mirrors the image."""
    reach = (8 * percent * longer + 100) // 200
    deviation = torch.full((), longer, dtype=torch.float64) * (percent / 100)
    distances = torch.arange(-reach, reach + 1)
    weights = (-0.5 * (distances / deviation).square()).exp()
    period = torch.full((), 2 * length)
    places = (torch.arange(length)[:, None] + distances) % period
    places = torch.minimum(places, period - 1 - places)
    blur = torch.zeros(length, length, dtype=torch.float64)
    return blur.scatter_add(1, places, (weights / weights.sum()).expand_as(places))
