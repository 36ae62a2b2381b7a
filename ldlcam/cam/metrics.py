"""How well regions agree with the boxes they should be."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ldlcam._check import (
    check_count,
    check_fraction,
    check_nonnegative,
    check_number,
    check_same_length,
    check_sequence,
    check_tensor,
    is_number,
)
from ldlcam._precision import upcast
from ldlcam.cam.boxes import Size, box_iou, proper_boxes, size_tensor
from ldlcam.cam.heatmaps import sanitize_heatmaps
from ldlcam.cam.levelsets import levelset_boxes, levelset_components


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
    check_iou_threshold(iou_threshold)
    iou = _region_iou(boxes, targets, valid)
    return _mean_where((iou > iou_threshold).to(iou.dtype), proper_boxes(targets))


def pointing_game(
    heatmaps: Tensor, targets: Tensor, size: Size, *, tolerance: float = 0.0
) -> Tensor:
    """Share of images whose heat map has its maximum inside the target: the pointing game.

    The point is the centre of the map's highest cell (the first in reading order, where several
    are equal), and the target is half-open. A map that shows no place (`valid_heatmaps`) misses;
    images without a target do not count, as in `mean_iou`.

    Args:
        heatmaps: Heat maps, (N, h, w), floating.
        targets: (N, 4) in pixels of the image, floating.
        size: (height, width) of the images, a pair or an (N, 2) tensor.
        tolerance: How far outside of its target a point may lie and still hit, in pixels, finite
            and at least 0. Published figures allow 15.

    Returns:
        Scalar in [0, 1].

    Raises:
        TypeError: If an argument is not of the kind above.
        ValueError: If the shapes do not fit together, or `tolerance` is out of range.

    Example:
        >>> import torch
        >>> from ldlcam import pointing_game
        >>> heatmaps = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
        >>> pointing_game(heatmaps, torch.tensor([[50.0, 50.0, 100.0, 100.0]]), (100, 100))
        tensor(1.)

    References:
        Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018, with
        `tolerance=15`.
    """
    check_nonnegative("tolerance", tolerance)
    targets = _full_precision(targets)
    maps, _, valid = sanitize_heatmaps(heatmaps)
    check_same_length(heatmaps=maps, targets=targets)
    height, width = maps.shape[1:]
    highest = maps.flatten(1).argmax(1)
    cells = torch.stack((highest // width, highest % width), 1).to(targets.dtype)
    sizes = size_tensor(size, "size", targets)
    y, x = ((cells + 0.5) * sizes / targets.new_tensor((height, width))).unbind(1)
    x1, y1, x2, y2 = targets.unbind(1)
    hits = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
    if tolerance:
        beside = (x1 - x).clamp(min=0) + (x - x2).clamp(min=0)
        above_or_below = (y1 - y).clamp(min=0) + (y - y2).clamp(min=0)
        hits |= torch.hypot(beside, above_or_below) <= tolerance
    hits &= valid
    return _mean_where(hits.to(targets.dtype), proper_boxes(targets))


class ThresholdSweepResult(NamedTuple):
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
) -> ThresholdSweepResult:
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
        ValueError: If the shapes do not fit together, there is no threshold, or one is not in
            (0, 1].

    Example:
        >>> import torch
        >>> from ldlcam import threshold_sweep
        >>> heatmaps = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
        >>> targets = torch.tensor([[100.0, 100.0, 200.0, 200.0]])
        >>> threshold_sweep(heatmaps, targets, [0.25, 0.5, 0.75], (300, 300)).best
        tensor(0.5000)
    """
    targets = _full_precision(targets)
    thresholds = threshold_tensor(thresholds, targets)
    overlaps, shares = [], []
    for threshold in thresholds:
        boxes, valid = levelset_boxes(heatmaps, threshold, size, component=component)
        boxes = boxes.to(targets.dtype)
        overlaps.append(mean_iou(boxes, targets, valid))
        shares.append(average_precision(boxes, targets, valid))
    return best_of_sweep(thresholds, torch.stack(overlaps), torch.stack(shares))


def best_of_sweep(thresholds: Tensor, means: Tensor, ap50: Tensor) -> ThresholdSweepResult:
    """The sweep of some figures, (K,) each."""
    return ThresholdSweepResult(thresholds, means, ap50, thresholds.take(means.argmax()))


class BoxAccuracyResult(NamedTuple):
    """Shares of images whose box is good enough, at each of several thresholds.

    Attributes:
        accuracy: (K, D), at K thresholds of the heat maps, for D thresholds of the IoU.
        maximum: (D,), at the best threshold of each IoU (MaxBoxAcc).
        best: (D,), those thresholds, fractions of the maps' maxima; of equals, the first.
        mean: Scalar, the mean of the maxima (MaxBoxAccV2).
    """

    accuracy: Tensor
    maximum: Tensor
    best: Tensor
    mean: Tensor


def box_accuracy(
    heatmaps: Tensor,
    targets: Tensor,
    thresholds: Sequence[float] | Tensor,
    size: Size,
    *,
    iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7),
    components: int = 1,
) -> BoxAccuracyResult:
    """Share of images with a box of sufficient overlap, and its maximum over thresholds.

    The maximum says how good maps could be, not how good a method is that has to choose its
    threshold: choose it on validation images, and score others at that one.

    Args:
        heatmaps: Heat maps, (N, h, w), floating.
        targets: (N, 4) in pixels of the image, floating. Those without area or with NaN do not
            count.
        thresholds: K fractions of the maximum, in (0, 1].
        size: (height, width) of the images, a pair or an (N, 2) tensor.
        iou_thresholds: D values in [0, 1] that the IoU has to reach.
        components: How many of the largest regions an image may offer; the best of their boxes
            counts.

    Returns:
        The accuracies.

    Raises:
        TypeError: If an argument is not a tensor of the expected kind.
        ValueError: If the shapes do not fit together, there is no threshold, or one is out of
            range.

    Example:
        >>> import torch
        >>> from ldlcam import box_accuracy
        >>> heatmaps = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
        >>> targets = torch.tensor([[100.0, 100.0, 200.0, 200.0]])
        >>> box_accuracy(heatmaps, targets, [0.2, 0.5], (300, 300)).accuracy
        tensor([[1., 0., 0.],
                [1., 1., 1.]])

    References:
        Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020
        (MaxBoxAcc and MaxBoxAccV2). There maps are scaled from their minimum to their maximum,
        boxes of whole pixels end on their last one, and one component or all of them count.
    """
    targets = _full_precision(targets)
    thresholds = threshold_tensor(thresholds, targets)
    check_iou_thresholds(iou_thresholds)
    check_count("components", components)
    limits = torch.as_tensor(iou_thresholds, dtype=targets.dtype, device=targets.device)
    shares = []
    for threshold in thresholds:
        boxes, valid = levelset_components(heatmaps, threshold, size, components)
        check_same_length(heatmaps=boxes, targets=targets)
        iou = box_iou(
            boxes.flatten(0, 1).to(targets.dtype), targets.repeat_interleave(components, 0)
        )
        highest = torch.where(valid, iou.view_as(valid), -1).amax(1)
        reached = (highest >= limits.unsqueeze(1)).to(targets.dtype)
        shares.append(_mean_where(reached, proper_boxes(targets)))
    return best_of_accuracies(thresholds, torch.stack(shares))


def best_of_accuracies(thresholds: Tensor, accuracy: Tensor) -> BoxAccuracyResult:
    """The result of some accuracies (K, D)."""
    maximum, place = accuracy.max(0)
    return BoxAccuracyResult(accuracy, maximum, thresholds[place], maximum.mean())


def check_iou_threshold(iou_threshold: float) -> None:
    """Check what the IoU must exceed."""
    expected = "a number in [0, 1)"
    check_number("iou_threshold", iou_threshold, expected, lambda number: 0 <= number < 1)


def check_iou_thresholds(iou_thresholds: Sequence[float]) -> None:
    """Check what the IoU must reach."""
    check_sequence("iou_thresholds", iou_thresholds)
    fit = all(is_number(limit) and 0 <= float(limit) <= 1 for limit in iou_thresholds)
    if len(iou_thresholds) == 0 or not fit:
        raise ValueError(f"iou_thresholds: expected numbers in [0, 1], got {iou_thresholds!r}")


def threshold_tensor(thresholds: Sequence[float] | Tensor, like: Tensor) -> Tensor:
    """Checked thresholds (K,), of another tensor's dtype and device."""
    values = thresholds
    if isinstance(thresholds, Tensor):
        values = [] if thresholds.is_meta else thresholds.flatten().tolist()
    else:
        check_sequence("thresholds", thresholds)
    for value in values:
        check_fraction("thresholds", value)
    thresholds = torch.as_tensor(thresholds, dtype=like.dtype, device=like.device)
    check_tensor("thresholds", thresholds, "K", "floating")
    if len(thresholds) == 0:
        raise ValueError("thresholds: expected at least one, got none")
    return thresholds


def _full_precision(targets: Tensor) -> Tensor:
    """The targets, checked, in float32 or float64: half precision cannot hold their products."""
    check_tensor("targets", targets, "N 4", "floating")
    return upcast(targets)


def _region_iou(boxes: Tensor, targets: Tensor, valid: Tensor | None) -> Tensor:
    check_tensor("boxes", boxes, "N 4", "floating")
    check_tensor("targets", targets, "N 4", "floating")
    check_same_length(boxes=boxes, targets=targets)
    iou = box_iou(boxes, targets)
    if valid is None:
        return iou
    check_tensor("valid", valid, "N", "bool", N=boxes.shape[0])
    return torch.where(valid, iou, 0)


def _mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """Means over the images (the last axis) that count; 0 where none does."""
    return torch.where(counted, values, 0).sum(-1) / counted.sum().clamp(min=1)
