"""How good predicted distributions are, over batches and processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ldlcam._check import check_tensor
from ldlcam.ldl.prediction import LabelDistribution
from ldlcam.ldl.reliability import (
    LEVELS,
    check_levels,
    coverage_by_level,
    interval_coverage,
    mean_crps,
)
from ldlcam.ldl.similarity import DistributionSimilarity, similarity_of_rows
from ldlcam.metrics._mean import MeanOverValues


class MeanCRPS(MeanOverValues):
    """Mean continuous ranked probability score, in the unit of the bins: `ldlcam.mean_crps`.

    `update(predicted, targets)` takes what the function takes: distributions (N,) and (N,), where
    a target of NaN is missing.

    Args:
        **kwargs: Those of every `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution
        >>> from ldlcam.metrics import MeanCRPS
        >>> metric = MeanCRPS()
        >>> metric.update(LabelDistribution(torch.zeros(1, 3), Bins(0, 2)), torch.tensor([1.0]))
        >>> metric.compute()
        tensor(0.2222)
    """

    higher_is_better = False

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def update(self, predicted: LabelDistribution, targets: Tensor) -> None:
        """Take in a batch."""
        self._add(mean_crps(predicted, targets), ~targets.isnan())


class IntervalCoverage(MeanOverValues):
    """Share of the true values inside of their intervals: `ldlcam.interval_coverage`.

    `update(low, high, targets)` takes what the function takes: (N,) each, where a target of NaN is
    missing.

    Args:
        **kwargs: Those of every `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import IntervalCoverage
        >>> metric = IntervalCoverage()
        >>> metric.update(torch.zeros(2), torch.ones(2), torch.tensor([0.5, 1.5]))
        >>> metric.compute()
        tensor(0.5000)
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def update(self, low: Tensor, high: Tensor, targets: Tensor) -> None:
        """Take in a batch."""
        self._add(interval_coverage(low, high, targets), ~targets.isnan())


class CoverageByLevel(MeanOverValues):
    """Share of the true values inside of central intervals by level: `ldlcam.coverage_by_level`.

    `update(predicted, targets)` takes distributions (N,) and (N,), where a target of NaN is
    missing.

    Args:
        levels: L levels in [0, 1], at least one; by default 5% to 95%.
        **kwargs: Those of every `torchmetrics.Metric`.

    Raises:
        ValueError: If there is no level or one is not in [0, 1].

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution
        >>> from ldlcam.metrics import CoverageByLevel
        >>> metric = CoverageByLevel([0.5, 0.9])
        >>> predicted = LabelDistribution(torch.zeros(2, 240), Bins(1, 240))
        >>> metric.update(predicted, torch.tensor([100.0, 30.0]))
        >>> metric.compute()
        tensor([0.5000, 1.0000])
    """

    def __init__(self, levels: Sequence[float] = LEVELS, **kwargs: Any):
        checked = torch.as_tensor(levels, dtype=torch.float64, device="cpu")
        check_tensor("levels", checked, "L")
        numbers = tuple(checked.tolist())
        check_levels(numbers)
        super().__init__(len(numbers), options=numbers, **kwargs)
        self.levels = numbers

    def update(self, predicted: LabelDistribution, targets: Tensor) -> None:
        """Take in a batch."""
        self._add(coverage_by_level(predicted, targets, self.levels), ~targets.isnan())


class ExpectedCalibrationError(CoverageByLevel):
    """Mean gap between levels and what intervals hold: `ldlcam.expected_calibration_error`.

    `update(predicted, targets)` takes distributions (N,) and (N,), where a target of NaN is
    missing.

    Args:
        levels: L levels in [0, 1], at least one; by default 5% to 95%.
        **kwargs: Those of every `torchmetrics.Metric`.

    Raises:
        ValueError: If there is no level or one is not in [0, 1].

    Example:
        >>> import torch
        >>> from ldlcam import Bins, LabelDistribution
        >>> from ldlcam.metrics import ExpectedCalibrationError
        >>> metric = ExpectedCalibrationError([0.5, 0.9])
        >>> predicted = LabelDistribution(torch.zeros(2, 240), Bins(1, 240))
        >>> metric.update(predicted, torch.tensor([100.0, 30.0]))
        >>> metric.compute()
        tensor(0.0500)
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """The error over all values that are present; NaN without any."""
        shares: Tensor = super().compute()
        levels = torch.tensor(self.levels, dtype=shares.dtype, device=shares.device)
        return (shares - levels).abs().mean()


class DistributionSimilarityScores(MeanOverValues):
    """The six measures of label-distribution learning: `ldlcam.distribution_similarity`.

    `update(probs, labels)` takes what the function takes, and `compute()` gives its
    `DistributionSimilarity`.

    Args:
        **kwargs: Those of every `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import DistributionSimilarityScores
        >>> metric = DistributionSimilarityScores()
        >>> metric.update(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.75, 0.25]]))
        >>> metric.compute().intersection
        tensor(0.7500)
    """

    def __init__(self, **kwargs: Any):
        super().__init__(6, **kwargs)

    def update(self, probs: Tensor, labels: Tensor) -> None:
        """Take in a batch."""
        self._add(*similarity_of_rows(probs, labels))

    def compute(self) -> DistributionSimilarity:
        """The six means over all labels that are present; NaN without any."""
        return DistributionSimilarity(*super().compute().unbind())
