"""Each metric class, its function, and images to score, with and without targets and regions."""

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric

import ldlcam
from ldlcam import metrics

SIZE = (60, 80)
THRESHOLDS = (0.2, 0.45, 0.7)
Batches = list[tuple[Any, ...]]


class OfLogits(WrapperMetric):
    """A metric of distributions as one of logits, which can be split into batches."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def update(self, logits: Tensor, *rest: Tensor) -> None:
        self.metric.update(ldlcam.LabelDistribution(logits, BINS), *rest)

    def forward(self, logits: Tensor, *rest: Tensor) -> Any:
        return self.metric(ldlcam.LabelDistribution(logits, BINS), *rest)

    def compute(self) -> Any:
        return self.metric.compute()

    def reset(self) -> None:
        super().reset()
        self.metric.reset()


class Case(NamedTuple):
    make: Callable[[], Metric]
    function: Callable[..., Any]
    data: Callable[[int], tuple[Tensor | None, ...]]
    rest: tuple[Any, ...] = ()


def boxes_and_targets(count: int) -> tuple[Tensor, Tensor, Tensor]:
    corners = torch.rand(2, count, 2, 2) * torch.tensor([80.0, 60.0])
    boxes, targets = torch.cat((corners.amin(2), corners.amax(2)), 2)
    boxes = torch.where(torch.rand(count, 1) < 0.5, boxes, targets + torch.rand(count, 1))
    targets[torch.rand(count) < 0.2] = torch.nan
    return boxes, targets, torch.rand(count) < 0.8


def heatmaps_and_targets(count: int) -> tuple[Tensor, Tensor]:
    heatmaps = torch.rand(count, 6, 8)
    heatmaps[torch.rand(count) < 0.1] = torch.nan
    return heatmaps, boxes_and_targets(count)[1]


def heatmaps_and_masks(count: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.rand(count, 6, 8),
        torch.rand(count, 12, 16) < 0.3,
        torch.rand(count, 12, 16) < 0.1,
    )


def values(count: int) -> tuple[Tensor, Tensor]:
    targets = torch.rand(count) * 200
    predictions = targets + 20 * torch.randn(count)
    targets[torch.rand(count) < 0.2] = torch.nan
    return predictions, targets


BINS = ldlcam.Bins(10, 200, 10)


def logits_and_targets(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, len(BINS)), values(count)[1]


def of_logits(metric: Callable[..., Any]) -> Callable[..., Any]:
    """A function of distributions as one of logits, which can be split into batches."""
    return lambda logits, *rest: metric(ldlcam.LabelDistribution(logits, BINS), *rest)


def intervals_and_targets(count: int) -> tuple[Tensor, Tensor, Tensor]:
    predictions, targets = values(count)
    return predictions - 15, predictions + 15, targets


def probs_and_labels(count: int) -> tuple[Tensor, Tensor]:
    probs, labels = torch.randn(2, count, 6).softmax(-1)
    return probs, labels * (torch.rand(count, 1) < 0.8)


def groups_and_values(count: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randint(-1, 4, (count,)), *values(count)


CASES = {
    "ByGroup": Case(
        lambda: metrics.ByGroup(metrics.MeanAbsoluteError(), groups=3),
        lambda group, *rest: ldlcam.by_group(ldlcam.mean_absolute_error, group, *rest, groups=3),
        groups_and_values,
    ),
    "CoverageByLevel": Case(
        lambda: OfLogits(metrics.CoverageByLevel([0.3, 0.9])),
        of_logits(lambda *batch: ldlcam.coverage_by_level(*batch, levels=[0.3, 0.9])),
        logits_and_targets,
    ),
    "DistributionSimilarityScores": Case(
        metrics.DistributionSimilarityScores, ldlcam.distribution_similarity, probs_and_labels
    ),
    "ExpectedCalibrationError": Case(
        lambda: OfLogits(metrics.ExpectedCalibrationError()),
        of_logits(ldlcam.expected_calibration_error),
        logits_and_targets,
    ),
    "IntervalCoverage": Case(
        metrics.IntervalCoverage, ldlcam.interval_coverage, intervals_and_targets
    ),
    "MeanCRPS": Case(
        lambda: OfLogits(metrics.MeanCRPS()), of_logits(ldlcam.mean_crps), logits_and_targets
    ),
    "MeanError": Case(metrics.MeanError, ldlcam.mean_error, values),
    "RootMeanSquaredError": Case(
        metrics.RootMeanSquaredError, ldlcam.root_mean_squared_error, values
    ),
    "MeanIoU": Case(metrics.MeanIoU, ldlcam.mean_iou, boxes_and_targets),
    "AveragePrecision": Case(
        lambda: metrics.AveragePrecision(0.3),
        lambda *batch: ldlcam.average_precision(*batch, iou_threshold=0.3),
        boxes_and_targets,
    ),
    "PointingGame": Case(
        lambda: metrics.PointingGame(tolerance=2.0),
        lambda *batch: ldlcam.pointing_game(*batch, tolerance=2.0),
        heatmaps_and_targets,
        (SIZE,),
    ),
    "ThresholdSweep": Case(
        lambda: metrics.ThresholdSweep(THRESHOLDS, component="peak"),
        lambda maps, targets, size: ldlcam.threshold_sweep(
            maps, targets, THRESHOLDS, size, component="peak"
        ),
        heatmaps_and_targets,
        (SIZE,),
    ),
    "BoxAccuracy": Case(
        lambda: metrics.BoxAccuracy(THRESHOLDS, iou_thresholds=(0.1, 0.3), components=2),
        lambda maps, targets, size: ldlcam.box_accuracy(
            maps, targets, THRESHOLDS, size, iou_thresholds=(0.1, 0.3), components=2
        ),
        heatmaps_and_targets,
        (SIZE,),
    ),
    "PixelAveragePrecision": Case(
        metrics.PixelAveragePrecision, ldlcam.pixel_average_precision, heatmaps_and_masks
    ),
    "MeanAbsoluteError": Case(metrics.MeanAbsoluteError, ldlcam.mean_absolute_error, values),
    "CumulativeScore": Case(
        lambda: metrics.CumulativeScore(12),
        lambda *batch: ldlcam.cumulative_score(*batch, k=12),
        values,
    ),
}


def images(name: str, count: int = 41) -> tuple[Any, ...]:
    """What a case's function takes, for all images at once."""
    case = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return (*case.data(count), *case.rest)


def batches(name: str, lengths: list[int]) -> list[tuple[Any, ...]]:
    """The same images in batches."""
    everything = images(name, sum(lengths))
    parts = [
        one.split(lengths) if isinstance(one, Tensor) else [one] * len(lengths)
        for one in everything
    ]
    return list(zip(*parts, strict=True))


def of_values(count: int) -> dict[str, Any]:
    """What metrics of values take, by the names of their arguments."""
    logits, targets = logits_and_targets(count)
    predictions = torch.rand(count) * 200
    probs, labels = probs_and_labels(count)
    return {
        "predicted": ldlcam.LabelDistribution(logits, BINS),
        "predictions": predictions,
        "low": predictions - 50,
        "high": predictions + 50,
        "targets": targets,
        "probs": probs,
        "labels": labels,
    }


def of_regions(count: int) -> dict[str, Any]:
    """What metrics of regions take, by the names of their arguments."""
    boxes, targets, _ = boxes_and_targets(count)
    heatmaps, masks, _ = heatmaps_and_masks(count)
    return {
        "boxes": boxes,
        "targets": targets,
        "heatmaps": heatmaps,
        "size": SIZE,
        "masks": masks,
    }


SIX_LEVELS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)

# Each class with each of its options; those of one list go into one collection.
KINDS: dict[Callable[[int], dict[str, Any]], list[Callable[[], Metric]]] = {
    of_values: [
        metrics.MeanAbsoluteError,
        metrics.RootMeanSquaredError,
        metrics.MeanError,
        lambda: metrics.CumulativeScore(6),
        lambda: metrics.CumulativeScore(30),
        metrics.IntervalCoverage,
        metrics.MeanCRPS,
        lambda: metrics.CoverageByLevel(SIX_LEVELS),
        lambda: metrics.CoverageByLevel([level / 2 for level in SIX_LEVELS]),
        lambda: metrics.ExpectedCalibrationError(SIX_LEVELS),
        lambda: metrics.ExpectedCalibrationError([level / 2 for level in SIX_LEVELS]),
        metrics.DistributionSimilarityScores,
    ],
    of_regions: [
        metrics.MeanIoU,
        metrics.AveragePrecision,
        lambda: metrics.AveragePrecision(0.01),
        metrics.PointingGame,
        lambda: metrics.ThresholdSweep(THRESHOLDS),
        lambda: metrics.ThresholdSweep(THRESHOLDS, component="peak"),
        lambda: metrics.ThresholdSweep((0.3, 0.5, 0.9)),
        lambda: metrics.BoxAccuracy((0.2, 0.7)),
        lambda: metrics.BoxAccuracy((0.5, 0.7)),
        lambda: metrics.BoxAccuracy((0.2, 0.7), iou_thresholds=(0.01, 0.1, 0.2)),
        lambda: metrics.BoxAccuracy((0.2, 0.7), components=9),
        metrics.PixelAveragePrecision,
    ],
}
PAIRS = [(data, *pair) for data, kinds in KINDS.items() for pair in combinations(kinds, 2)]
