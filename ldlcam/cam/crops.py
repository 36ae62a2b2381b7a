"""Crops of images at a wanted size: antialiased, differentiable in the images and the boxes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ldlcam._check import check_same_length, check_sequence, check_tensor
from ldlcam._precision import upcast, without_autocast
from ldlcam.cam.boxes import Size, check_size, fill_boxes, match_aspect, size_tensor


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
    `F.interpolate(mode="bilinear", antialias=antialias)`. Boxes need not fall on whole pixels. On
    the CPU, crops can be differentiated once, not twice.

    Args:
        images: (N, C, H, W), floating, or N images (C, H_i, W_i) of different sizes. Where a
            pixel is not finite, its crop is not to be relied on: on the CPU only output pixels
            that read it are lost, on other devices and compiled it can be the whole crop.
        boxes: (N, 4) in pixels of the image, floating. Where one reaches beyond the image, what
            is read at the border is continued. A box without area, or with NaN or infinities, also
            as its sides, stands for the whole image.
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
        frame: Size = images.shape[2], images.shape[3]
        boxes = upcast(boxes).to(images.device)
    else:
        _check_list(images, boxes)
        boxes = upcast(boxes).to(images[0].device)
        sides = [size_tensor((image.shape[1], image.shape[2]), "images", boxes) for image in images]
        frame = torch.cat(sides)
    boxes = fill_boxes(boxes, frame)
    if keep_aspect:
        boxes = fill_boxes(match_aspect(boxes, size), frame)  # can have grown beyond all numbers
    rows, columns = _samples(boxes, frame, size, antialias)
    # The cost of the taps grows with the crop, but how many there are depends on the data; the
    # products have fixed shapes, which a compiler and an accelerator prefer; and they can be none.
    if boxes.device.type != "cpu" or torch.compiler.is_compiling() or len(images) == 0:
        if isinstance(images, Tensor):
            return _average_by_products(images, rows, columns)
        return torch.cat(
            [
                _average_by_products(image.unsqueeze(0), rows.of(i), columns.of(i))
                for i, image in enumerate(images)
            ]
        )
    # One by one, what lies between the two axes' sums stays in the processor's cache.
    crops = [_average_by_taps(image, rows.of(i), columns.of(i)) for i, image in enumerate(images)]
    return torch.stack(crops)


def _check_list(images: Sequence[Tensor], boxes: Tensor) -> None:
    check_sequence("images", images, "a tensor or a sequence of tensors")
    if len(images) == 0:
        raise ValueError("images: expected at least one in a list, got none")
    check_tensor("images[0]", images[0], "C H W", "floating")
    for index, image in enumerate(images):
        check_tensor(f"images[{index}]", image, "C H W", "floating", C=images[0].shape[0])
    if len(images) != len(boxes):
        raise ValueError(f"images: expected {len(boxes)}, one per box, got {len(images)}")


class _Samples(NamedTuple):
    """Where the output pixels lie along one axis of the images, and how far each one reads."""

    centers: Tensor  # (N, L) in pixels of the image, not beyond its outermost pixels' centres
    reach: Tensor  # (N, 1), the half-width of the triangle

    def of(self, index: int) -> "_Samples":
        """Those of one image."""
        return _Samples(self.centers[index : index + 1], self.reach[index : index + 1])

    def weights(self, places: Tensor) -> Tensor:
        """Triangle at the given pixels, (N, L, P), 0 beyond the image, each sample's sum 1."""
        # Not in the default dtype, which may be half precision.
        places = places.to(self.centers.dtype)
        distances = (places + 0.5 - self.centers.unsqueeze(2)).abs()
        triangle = (1 - distances / self.reach.unsqueeze(2)).clamp(min=0)
        return triangle / triangle.sum(2, keepdim=True)

    def matrix(self, pixels: int) -> Tensor:
        """Weights of every pixel, (N, 1, L, pixels)."""
        return self.weights(torch.arange(pixels, device=self.centers.device)).unsqueeze(1)

    def taps(self, pixels: int) -> tuple[Tensor, Tensor]:
        """The pixels in reach of each sample and their weights, both (L, K), for one image."""
        centers, reach = self.centers.detach(), self.reach.detach()
        # A box far larger than the image reads all of it, and no more.
        count = math.ceil(min(2 * float(reach), pixels))
        first = (centers - reach + 0.5).floor().clamp(0, pixels - count).long()
        places = first.unsqueeze(2) + torch.arange(count, device=first.device)
        return places[0], self.weights(places)[0]


def _samples(
    boxes: Tensor, frame: Size, size: tuple[int, int], antialias: bool
) -> tuple[_Samples, _Samples]:
    """Those of the rows and of the columns, of images of these sizes."""

    def along(start: Tensor, end: Tensor, pixels: int | Tensor, count: int) -> _Samples:
        step = (end - start).unsqueeze(1) / count
        order = torch.arange(count, dtype=start.dtype, device=start.device)
        centers = start.unsqueeze(1) + (order + 0.5) * step
        reach = step.clamp(min=1) if antialias else torch.ones_like(step)
        # Samples beyond the outermost pixel centres continue the border. (Clamped twice: a number
        # and a tensor cannot be bounds together.)
        return _Samples(centers.clamp(min=0.5).clamp(max=pixels - 0.5), reach)

    x1, y1, x2, y2 = boxes.unbind(1)
    height, width = (frame[:, :1], frame[:, 1:]) if isinstance(frame, Tensor) else frame
    return along(y1, y2, height, size[0]), along(x1, x2, width, size[1])


def _average_by_products(images: Tensor, rows: _Samples, columns: _Samples) -> Tensor:
    with without_autocast(images.device.type):
        by_rows, by_columns = rows.matrix(images.shape[2]), columns.matrix(images.shape[3])
        return by_rows.to(images.dtype) @ images @ by_columns.to(images.dtype).mT


def _average_by_taps(image: Tensor, rows: _Samples, columns: _Samples) -> Tensor:
    """Of one image (C, H, W)."""
    halfway = _sum_rows(image, *rows.taps(image.shape[1]))
    places, weights = columns.taps(image.shape[2])
    first, last = int(places[0, 0]), int(places[-1, -1])  # the columns that are read
    return _sum_rows(halfway[:, :, first : last + 1].mT, places - first, weights).mT


def _sum_rows(image: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums, (C, L, W), of an image's rows at (L, K) places."""
    channels, height, width = image.shape
    # Of all channels below each other. Plain views: einops takes a quarter of a small image's time.
    planes = torch.arange(channels, device=places.device).view(-1, 1, 1) * height
    sums = F.embedding_bag(
        (planes + places).flatten(0, 1),
        image.reshape(channels * height, width),
        mode="sum",
        per_sample_weights=weights.to(image.dtype).expand(channels, -1, -1).flatten(0, 1),
    )
    return sums.view(channels, len(places), width)
