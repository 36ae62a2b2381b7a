"""Crops of images at a wanted size: antialiased, differentiable in the images and the boxes."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from ldlcam._check import check_same_length, check_tensor
from ldlcam._precision import upcast
from ldlcam.cam.boxes import check_size, fill_boxes, match_aspect


def crop_and_resize(
    images: Tensor | Sequence[Tensor],
    boxes: Tensor,
    size: tuple[int, int],
    *,
    antialias: bool = True,
    keep_aspect: bool = False,
) -> Tensor:
    """The part of each image inside its box, resized; one crop per image.

    An output pixel is the mean of the image's pixels under a triangle about its centre. The
    triangle's half-width is one output pixel where the crop shrinks (antialiasing) and one image
    pixel where it grows (bilinear interpolation). So a box that is the whole image gives
    `F.interpolate(mode="bilinear", antialias=antialias)`. Boxes need not fall on whole pixels.

    Args:
        images: (N, C, H, W), floating, or N images (C, H_i, W_i) of different sizes. Where a
            pixel is not finite, its crop is not to be relied on: on the CPU only output pixels
            that read it are lost, on other devices and compiled it can be the whole crop.
        boxes: (N, 4) in pixels of the image, floating. Where one reaches beyond the image, the
            border is continued. A box without area, or with NaN or infinities, stands for the
            whole image.
        size: (height, width) of the crops in pixels.
        antialias: Whether the triangle widens where the crop shrinks. Without, thin structures
            alias when the scale falls below a half.
        keep_aspect: Whether boxes are first enlarged about their centres to the crops' aspect
            ratio (`match_aspect`), so that nothing is squashed.

    Returns:
        Crops, (N, C, h, w), of the images' dtype.

    Raises:
        TypeError: If an argument is not a floating tensor.
        ValueError: If the shapes do not fit together.

    Example:
        >>> import torch
        >>> from ldlcam import crop_and_resize
        >>> images = torch.rand(2, 3, 400, 300)
        >>> boxes = torch.tensor([[20.0, 30.0, 220.0, 330.0], [0.0, 0.0, 0.0, 0.0]])
        >>> crop_and_resize(images, boxes, (64, 64)).shape
        torch.Size([2, 3, 64, 64])
    """
    check_tensor("boxes", boxes, "N 4", "floating")
    size = check_size("size", size)
    if isinstance(images, Tensor):
        check_tensor("images", images, "N C H W", "floating")
        check_same_length(images=images, boxes=boxes)
        return _crop(images, boxes, size, antialias, keep_aspect)
    for index, image in enumerate(images):
        check_tensor(f"images[{index}]", image, "C H W", "floating")
    if len(images) != len(boxes) or len(images) == 0:
        raise ValueError(f"images: expected {len(boxes)}, one per box, got {len(images)}")
    crops = [
        _crop(image.unsqueeze(0), box.unsqueeze(0), size, antialias, keep_aspect)
        for image, box in zip(images, boxes, strict=True)
    ]
    return torch.cat(crops)


def _crop(
    images: Tensor, boxes: Tensor, size: tuple[int, int], antialias: bool, keep_aspect: bool
) -> Tensor:
    height, width = images.shape[2:]
    boxes = upcast(boxes).to(images.device)
    boxes = fill_boxes(boxes, (height, width))
    if keep_aspect:
        boxes = match_aspect(boxes, size)
    x1, y1, x2, y2 = boxes.unbind(1)
    rows = _samples(y1, y2, height, size[0], antialias)
    columns = _samples(x1, x2, width, size[1], antialias)
    # The cost of the taps grows with the crop, but how many there are depends on the data; the
    # products have fixed shapes, which a compiler and an accelerator prefer.
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        with _without_autocast(images.device.type):
            return rows.matrix(images) @ images @ columns.matrix(images).mT
    halfway = _sum_taps(images, *rows.taps(images))
    return _sum_taps(halfway.mT, *columns.taps(images)).mT.contiguous()


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """Products keep the images' dtype; the meta device knows no autocast."""
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


class _Samples(NamedTuple):
    """Where the output pixels lie along one axis of the images, and how far each one reads."""

    centers: Tensor  # (N, L, 1) in pixels of the image
    reach: Tensor  # (N, 1, 1), the half-width of the triangle
    pixels: int  # length of the image's axis

    def weights(self, places: Tensor) -> Tensor:
        """Triangle at the given pixels, 0 beyond the image, each sample's sum 1."""
        distances = (places + 0.5 - self.centers).abs()
        inside = (places >= 0) & (places < self.pixels)
        triangle = torch.where(inside, (1 - distances / self.reach).clamp(min=0), 0)
        return triangle / triangle.sum(2, keepdim=True)

    def matrix(self, images: Tensor) -> Tensor:
        """Weights of every pixel, (N, 1, L, pixels)."""
        places = torch.arange(self.pixels, device=images.device)
        return self.weights(places).to(images.dtype).unsqueeze(1)

    def taps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels in reach and their weights, both (N, L, K)."""
        centers, reach = self.centers.detach(), self.reach.detach()
        # A box far larger than the image reads all of it, and no more.
        widest = min(2 * float(reach.amax()), self.pixels) if images.shape[0] else 1
        count = math.ceil(widest)
        first = (centers - reach + 0.5).floor().clamp(0, self.pixels - count).long()
        places = first + torch.arange(count, device=images.device)
        return places, self.weights(places).to(images.dtype)


def _samples(start: Tensor, end: Tensor, pixels: int, count: int, antialias: bool) -> _Samples:
    step = (end - start).view(-1, 1, 1) / count
    order = torch.arange(count, device=start.device).view(1, -1, 1)
    centers = start.view(-1, 1, 1) + (order + 0.5) * step
    reach = step.clamp(min=1) if antialias else torch.ones_like(step)
    # Samples beyond the outermost pixel centres continue the border.
    return _Samples(centers.clamp(0.5, pixels - 0.5), reach, pixels)


def _sum_taps(images: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows, (N, C, L, W), of the rows at (N, L, K) places."""
    count, channels, height, width = images.shape
    planes = torch.arange(count * channels, device=images.device) * height
    bags = places.unsqueeze(1) + planes.view(count, channels, 1, 1)
    sums = F.embedding_bag(
        rearrange(bags, "n c l k -> (n c l) k"),
        rearrange(images, "n c h w -> (n c h) w"),
        mode="sum",
        per_sample_weights=repeat(weights, "n l k -> (n c l) k", c=channels),
    )
    return sums.view(count, channels, places.shape[1], width)
