"""How well regions agree with the boxes they should be."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ldlcam._check import check_fraction, check_same_length, check_tensor
from ldlcam.cam.boxes import Size, box_iou, proper_boxes, size_tensor
from ldlcam.cam.heatmaps import sanitize_heatmaps
from ldlcam.cam.levelsets import levelset_boxes


def mean_iou(boxes: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean intersection over union of each image's box with its target.

    An image without a region counts as 0. An image without a target (its box has no area, or
    NaN) does not count; without any target the result is 0.

    Args:
        boxes: (N, 4) in pixels, floating.
        targets: (N, 4) in the same pixels, floating.
        valid: Which images have a region, (N,) bool; None for all.

    Returns:
        Scalar in [0, 1].

    Raises:
        TypeError: If an argument is not a tensor of the expected kind.
        ValueError: If the shapes do not fit together.

    Example:
        >>> import torch
        >>> from ldlcam import mean_iou
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
        >>> targets = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 4.0]])
        >>> mean_iou(boxes, targets)
        tensor(0.7500)
    """
    return _mean_where(_region_iou(boxes, targets, valid), proper_boxes(targets))


def average_precision(
    boxes: Tensor, targets: Tensor, valid: Tensor | None = None, iou_threshold: float = 0.5
) -> Tensor:
    """Share of images whose box overlaps its target by more than a threshold: AP50 at 0.5.

    With one box and one target per image, average precision is this share. Images without a region
    or a target count as in `mean_iou`.

    Args:
        boxes: (N, 4) in pixels, floating.
        targets: (N, 4) in the same pixels, floating.
        valid: Which images have a region, (N,) bool; None for all.
        iou_threshold: What intersection over union must exceed, in [0, 1).

    Returns:
        Scalar in [0, 1].

    Raises:
        TypeError: If an argument is not a tensor of the expected kind.
        ValueError: If the shapes do not fit together or the threshold is not in [0, 1).

    Example:
        >>> import torch
        >>> from ldlcam import average_precision
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
        >>> targets = torch.tensor([[0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 2.0, 4.0]])
        >>> average_precision(boxes, targets)
        tensor(0.5000)

    References:
        Chen et al., arXiv 2006.00202, Sec. IV: the share of images with IoU > 0.5.
    """
    if not 0 <= iou_threshold < 1:
        raise ValueError(f"iou_threshold: expected a number in [0, 1), got {iou_threshold!r}")
    iou = _region_iou(boxes, targets, valid)
    return _mean_where((iou > iou_threshold).to(iou.dtype), proper_boxes(targets))


def pointing_game(heatmaps: Tensor, targets: Tensor, size: Size) -> Tensor:
    """Share of images whose heat map has its maximum inside the target: the pointing game.

    The point is the centre of the map's highest cell (the first in reading order, where several
    are equal), and the target is half-open. A map that shows no place (`valid_heatmaps`) misses;
    images without a target do not count, as in `mean_iou`.

    Args:
        heatmaps: Heat maps, (N, h, w), floating.
        targets: (N, 4) in pixels of the image, floating.
        size: (height, width) of the images, a pair or an (N, 2) tensor.

    Returns:
        Scalar in [0, 1].

    Raises:
        TypeError: If an argument is not a floating tensor.
        ValueError: If the shapes do not fit together.

    Example:
        >>> import torch
        >>> from ldlcam import pointing_game
        >>> heatmaps = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
        >>> pointing_game(heatmaps, torch.tensor([[50.0, 50.0, 100.0, 100.0]]), (100, 100))
        tensor(1.)

    References:
        Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018. There the
        maximum may miss the target by 15 pixels; here it may not.
    """
    targets = _full_precision(targets)
    maps, _, valid = sanitize_heatmaps(heatmaps)
    check_same_length(heatmaps=maps, targets=targets)
    height, width = maps.shape[1:]
    highest = maps.flatten(1).argmax(1)
    cells = torch.stack((highest // width, highest % width), 1).to(targets.dtype)
    sizes = size_tensor(size, "size", targets)
    y, x = ((cells + 0.5) * sizes / targets.new_tensor((height, width))).unbind(1)
    x1, y1, x2, y2 = targets.unbind(1)
    hits = valid & (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
    return _mean_where(hits.to(targets.dtype), proper_boxes(targets))


class ThresholdSweep(NamedTuple):
    """Localization at each of several thresholds.

    Attributes:
        thresholds: (K,), fractions of the maps' maxima.
        mean_iou: (K,).
        ap50: (K,), the share of images with an IoU above 0.5.
        best: Scalar, the threshold with the highest mean IoU; of equals, the first.
    """

    thresholds: Tensor
    mean_iou: Tensor
    ap50: Tensor
    best: Tensor


def threshold_sweep(
    heatmaps: Tensor,
    targets: Tensor,
    thresholds: Sequence[float] | Tensor,
    size: Size,
    component: Literal["largest", "peak"] = "largest",
) -> ThresholdSweep:
    """Mean IoU and AP50 of the regions at each threshold, to choose one on validation images.

    Args:
        heatmaps: Heat maps, (N, h, w), floating.
        targets: (N, 4) in pixels of the image, floating.
        thresholds: K fractions of the maximum, in (0, 1].
        size: (height, width) of the images, a pair or an (N, 2) tensor.
        component: Which component of the region counts; see `levelset_boxes`.

    Returns:
        The sweep.

    Raises:
        TypeError: If an argument is not a tensor of the expected kind.
        ValueError: If the shapes do not fit together, there is no threshold, or one that is not in
            a tensor is not in (0, 1].

    Example:
        >>> import torch
        >>> from ldlcam import threshold_sweep
        >>> heatmaps = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
        >>> targets = torch.tensor([[100.0, 100.0, 200.0, 200.0]])
        >>> threshold_sweep(heatmaps, targets, [0.25, 0.5, 0.75], (300, 300)).best
        tensor(0.5000)
    """
    targets = _full_precision(targets)
    if not isinstance(thresholds, Tensor):
        for threshold in thresholds:
            check_fraction("thresholds", threshold)
    thresholds = torch.as_tensor(thresholds, dtype=targets.dtype, device=targets.device)
    check_tensor("thresholds", thresholds, "K", "floating")
    if len(thresholds) == 0:
        raise ValueError("thresholds: expected at least one, got none")
    overlaps, shares = [], []
    for threshold in thresholds:
        boxes, valid = levelset_boxes(heatmaps, threshold, size, component=component)
        boxes = boxes.to(targets.dtype)
        overlaps.append(mean_iou(boxes, targets, valid))
        shares.append(average_precision(boxes, targets, valid))
    means, ap50 = torch.stack(overlaps), torch.stack(shares)
    return ThresholdSweep(thresholds, means, ap50, thresholds.take(means.argmax()))


def _full_precision(targets: Tensor) -> Tensor:
    """The targets, checked, in float32 or float64: half precision cannot hold their products."""
    check_tensor("targets", targets, "N 4", "floating")
    return targets.to(torch.promote_types(targets.dtype, torch.float32))


def _region_iou(boxes: Tensor, targets: Tensor, valid: Tensor | None) -> Tensor:
    iou = box_iou(boxes, targets)
    if valid is None:
        return iou
    check_tensor("valid", valid, "N", "bool", N=len(boxes))
    return torch.where(valid, iou, 0)


def _mean_where(values: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, values, 0).sum() / counted.sum().clamp(min=1)
