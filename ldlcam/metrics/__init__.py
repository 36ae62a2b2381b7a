"""The metrics as classes of torchmetrics: over batches, epochs and processes.

Each class is one of the functions of `ldlcam` of nearly the same name, and gives what the function
gives on all images at once, however they came: in batches, or spread over processes. They go where
metrics of torchmetrics go: into a `MetricCollection`, into `self.log` of Lightning.

This module needs torchmetrics (`pip install "ldlcam[metrics]"`); the functions do not.
"""

try:
    import torchmetrics as _torchmetrics  # noqa: F401
except ImportError as error:
    raise ImportError(
        'ldlcam.metrics needs torchmetrics: pip install "ldlcam[metrics]"; '
        "the functions of ldlcam do without"
    ) from error

from ldlcam.metrics.distributions import (
    CoverageByLevel,
    DistributionSimilarityScores,
    ExpectedCalibrationError,
    IntervalCoverage,
    MeanCRPS,
)
from ldlcam.metrics.groups import ByGroup
from ldlcam.metrics.localization import (
    AveragePrecision,
    BoxAccuracy,
    MeanIoU,
    PixelAveragePrecision,
    PointingGame,
    ThresholdSweep,
)
from ldlcam.metrics.values import (
    CumulativeScore,
    MeanAbsoluteError,
    MeanError,
    RootMeanSquaredError,
)

__all__ = [
    "AveragePrecision",
    "BoxAccuracy",
    "ByGroup",
    "CoverageByLevel",
    "CumulativeScore",
    "DistributionSimilarityScores",
    "ExpectedCalibrationError",
    "IntervalCoverage",
    "MeanAbsoluteError",
    "MeanCRPS",
    "MeanError",
    "MeanIoU",
    "PixelAveragePrecision",
    "PointingGame",
    "RootMeanSquaredError",
    "ThresholdSweep",
]
