"""How well regions agree with the boxes they should be, over batches and processes."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from ldlcam._check import check_choice, check_count, check_nonnegative
from ldlcam.cam.boxes import Size, proper_boxes
from ldlcam.cam.metrics import (
    BoxAccuracyResult,
    ThresholdSweepResult,
    average_precision,
    best_of_accuracies,
    best_of_sweep,
    box_accuracy,
    check_iou_threshold,
    check_iou_thresholds,
    mean_iou,
    pointing_game,
    threshold_sweep,
    threshold_tensor,
)
from ldlcam.cam.pixel_metrics import comparable_pixels, precision_recall_area
from ldlcam.metrics._exact import ExactMetric
from ldlcam.metrics._mean import MeanOverImages


class MeanIoU(MeanOverImages):
    """Mean intersection over union of each image's box with its target: `ldlcam.mean_iou`.

    `update(boxes, targets, valid=None)` takes what the function takes.

    Args:
        **kwargs: Those of every `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import MeanIoU
        >>> metric = MeanIoU()
        >>> target = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> metric.update(target, target)
        >>> metric.update(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), target)
        >>> metric.compute()
        tensor(0.7500)
    """

    higher_is_better = True

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def update(self, boxes: Tensor, targets: Tensor, valid: Tensor | None = None) -> None:
        """Take in a batch."""
        self._add(mean_iou(boxes, targets, valid), proper_boxes(targets))


class AveragePrecision(MeanOverImages):
    """Share of images whose box overlaps its target enough: `ldlcam.average_precision`.

    `update(boxes, targets, valid=None)` takes what the function takes.

    Args:
        iou_threshold: What intersection over union must exceed, in [0, 1).
        **kwargs: Those of every `torchmetrics.Metric`.

    Raises:
        ValueError: If the threshold is not in [0, 1).

    Example:
        >>> import torch
        >>> from ldlcam.metrics import AveragePrecision
        >>> metric = AveragePrecision(0.5)
        >>> target = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> metric.update(target, target)
        >>> metric.update(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), target)
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = True

    def __init__(self, iou_threshold: float = 0.5, **kwargs: Any):
        check_iou_threshold(iou_threshold)
        super().__init__(options=(float(iou_threshold),), **kwargs)
        self.iou_threshold = iou_threshold

    def update(self, boxes: Tensor, targets: Tensor, valid: Tensor | None = None) -> None:
        """Take in a batch."""
        share = average_precision(boxes, targets, valid, self.iou_threshold)
        self._add(share, proper_boxes(targets))


class PointingGame(MeanOverImages):
    """Share of images whose heat map has its maximum inside the target: `ldlcam.pointing_game`.

    `update(heatmaps, targets, size)` takes what the function takes.

    Args:
        tolerance: How far outside of its target a point may lie, in pixels, at least 0.
        **kwargs: Those of every `torchmetrics.Metric`.

    Raises:
        ValueError: If `tolerance` is out of range.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import PointingGame
        >>> metric = PointingGame()
        >>> heatmaps = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
        >>> metric.update(heatmaps, torch.tensor([[50.0, 50.0, 100.0, 100.0]]), (100, 100))
        >>> metric.compute()
        tensor(1.)
    """

    higher_is_better = True

    def __init__(self, *, tolerance: float = 0.0, **kwargs: Any):
        check_nonnegative("tolerance", tolerance)
        super().__init__(options=(float(tolerance),), **kwargs)
        self.tolerance = tolerance

    def update(self, heatmaps: Tensor, targets: Tensor, size: Size) -> None:
        """Take in a batch."""
        share = pointing_game(heatmaps, targets, size, tolerance=self.tolerance)
        self._add(share, proper_boxes(targets))


class ThresholdSweep(MeanOverImages):
    """Mean IoU and AP50 at each threshold, to choose one: `ldlcam.threshold_sweep`.

    `update(heatmaps, targets, size)` takes what the function takes, and `compute()` gives its
    `ThresholdSweepResult`.

    Args:
        thresholds: K fractions of the maximum, in (0, 1].
        component: Which component of the region counts; see `ldlcam.levelset_boxes`.
        **kwargs: Those of every `torchmetrics.Metric`.

    Raises:
        ValueError: If there is no threshold or one is not in (0, 1], or the component is unknown.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import ThresholdSweep
        >>> metric = ThresholdSweep([0.25, 0.5, 0.75])
        >>> heatmaps = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
        >>> metric.update(heatmaps, torch.tensor([[100.0, 100.0, 200.0, 200.0]]), (300, 300))
        >>> metric.compute().best
        tensor(0.5000)
    """

    higher_is_better = True

    def __init__(
        self,
        thresholds: Sequence[float] | Tensor,
        *,
        component: Literal["largest", "peak"] = "largest",
        **kwargs: Any,
    ):
        checked = _checked(thresholds)
        check_choice("component", component, ("largest", "peak"))
        super().__init__(2, len(checked), options=(checked, component), **kwargs)
        self.thresholds = checked
        self.component = component

    def update(self, heatmaps: Tensor, targets: Tensor, size: Size) -> None:
        """Take in a batch."""
        sweep = threshold_sweep(heatmaps, targets, self.thresholds, size, self.component)
        self._add(torch.stack((sweep.mean_iou, sweep.ap50)), proper_boxes(targets))

    def compute(self) -> ThresholdSweepResult:
        """The sweep over all images that count."""
        means, ap50 = super().compute()
        return best_of_sweep(threshold_tensor(self.thresholds, means), means, ap50)


class BoxAccuracy(MeanOverImages):
    """Shares of images with a box that is good enough, MaxBoxAcc: `ldlcam.box_accuracy`.

    `update(heatmaps, targets, size)` takes what the function takes, and `compute()` gives its
    `BoxAccuracyResult`.

    Args:
        thresholds: K fractions of the maximum, in (0, 1].
        iou_thresholds: D values in [0, 1] that the IoU has to reach.
        components: How many of the largest regions an image may offer.
        **kwargs: Those of every `torchmetrics.Metric`.

    Raises:
        ValueError: If there is no threshold, or one is out of range.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import BoxAccuracy
        >>> metric = BoxAccuracy([0.2, 0.5])
        >>> heatmaps = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
        >>> metric.update(heatmaps, torch.tensor([[100.0, 100.0, 200.0, 200.0]]), (300, 300))
        >>> metric.compute().maximum
        tensor([1., 1., 1.])
    """

    higher_is_better = True

    def __init__(
        self,
        thresholds: Sequence[float] | Tensor,
        *,
        iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7),
        components: int = 1,
        **kwargs: Any,
    ):
        checked = _checked(thresholds)
        check_iou_thresholds(iou_thresholds)
        check_count("components", components)
        reached = tuple(float(threshold) for threshold in iou_thresholds)
        options = (checked, reached, components)
        super().__init__(len(checked), len(reached), options=options, **kwargs)
        self.thresholds = checked
        self.iou_thresholds = reached
        self.components = components

    def update(self, heatmaps: Tensor, targets: Tensor, size: Size) -> None:
        """Take in a batch."""
        shares = box_accuracy(
            heatmaps,
            targets,
            self.thresholds,
            size,
            iou_thresholds=self.iou_thresholds,
            components=self.components,
        )
        self._add(shares.accuracy, proper_boxes(targets))

    def compute(self) -> BoxAccuracyResult:
        """The accuracies over all images that count."""
        accuracy = super().compute()
        return best_of_accuracies(threshold_tensor(self.thresholds, accuracy), accuracy)


class PixelAveragePrecision(ExactMetric):
    """Area under the precision-recall curve of all pixels, PxAP: `ldlcam.pixel_average_precision`.

    `update(heatmaps, masks, ignored=None)` takes what the function takes; from one batch to the
    next, sizes may differ. The exact curve needs every pixel that counts: two numbers of each are
    kept.

    Args:
        **kwargs: Those of every `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import PixelAveragePrecision
        >>> metric = PixelAveragePrecision()
        >>> masks = torch.tensor([[[True, False], [True, False]]])
        >>> metric.update(torch.tensor([[[0.9, 0.8], [0.1, 0.0]]]), masks)
        >>> metric.compute()
        tensor(0.8333)
    """

    higher_is_better = True
    full_state_update = False

    scores: list[Tensor]
    hits: list[Tensor]

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        for name in ("scores", "hits"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, heatmaps: Tensor, masks: Tensor, ignored: Tensor | None = None) -> None:
        """Take in a batch."""
        scores, hits, counted = comparable_pixels(heatmaps, masks, ignored)
        # One dtype for all: what a process without any image sends has this one.
        self.scores.append(scores[counted].to(self.dtype))
        self.hits.append(hits[counted].to(self.dtype))

    def compute(self) -> Tensor:
        """The area over all pixels that count; 0 where none should be hot."""
        if len(self.scores) == 0:
            return torch.zeros((), device=self.device)
        scores, hits = dim_zero_cat(self.scores), dim_zero_cat(self.hits) > 0
        return precision_recall_area(scores, hits, torch.ones_like(hits))


def _checked(thresholds: Sequence[float] | Tensor) -> tuple[float, ...]:
    """The thresholds as numbers: each batch takes them in its own precision."""
    numbers = tuple(float(threshold) for threshold in thresholds)
    threshold_tensor(numbers, torch.zeros(()))
    return numbers
