"""How far predicted values are from the true ones, over batches and processes."""

from typing import Any

from torch import Tensor

from ldlcam._check import check_positive
from ldlcam.ldl.metrics import (
    cumulative_score,
    mean_absolute_error,
    mean_error,
    root_mean_squared_error,
)
from ldlcam.metrics._mean import MeanOverValues


class MeanAbsoluteError(MeanOverValues):
    """Mean absolute error, in the unit of the values: `ldlcam.mean_absolute_error`.

    `update(predictions, targets)` takes what the function takes: (N,) each, where a target of NaN
    is missing. `torchmetrics.MeanAbsoluteError` counts such a target, and answers NaN.

    Args:
        **kwargs: Those of every `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import MeanAbsoluteError
        >>> metric = MeanAbsoluteError()
        >>> metric.update(torch.tensor([10.0, 24.0]), torch.tensor([11.0, 20.0]))
        >>> metric.update(torch.tensor([30.0]), torch.tensor([float("nan")]))
        >>> metric.compute()
        tensor(2.5000)
    """

    higher_is_better = False

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Take in a batch."""
        self._add(mean_absolute_error(predictions, targets), ~targets.isnan())


class RootMeanSquaredError(MeanOverValues):
    """Root of the mean squared error, in the unit of the values: `root_mean_squared_error`.

    `update(predictions, targets)` takes what the function takes: (N,) each, where a target of NaN
    is missing.

    Args:
        **kwargs: Those of every `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import RootMeanSquaredError
        >>> metric = RootMeanSquaredError()
        >>> metric.update(torch.tensor([10.0, 24.0]), torch.tensor([11.0, 17.0]))
        >>> metric.compute()
        tensor(5.)
    """

    higher_is_better = False

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Take in a batch."""
        self._add(root_mean_squared_error(predictions, targets).square(), ~targets.isnan())

    def compute(self) -> Tensor:
        """The root over all values that are present; NaN without any."""
        root: Tensor = super().compute().sqrt()
        return root


class MeanError(MeanOverValues):
    """Mean of prediction - target, the bias, in the unit of the values: `ldlcam.mean_error`.

    `update(predictions, targets)` takes what the function takes: (N,) each, where a target of NaN
    is missing.

    Args:
        **kwargs: Those of every `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import MeanError
        >>> metric = MeanError()
        >>> metric.update(torch.tensor([10.0, 24.0]), torch.tensor([11.0, 20.0]))
        >>> metric.compute()
        tensor(1.5000)
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Take in a batch."""
        self._add(mean_error(predictions, targets), ~targets.isnan())


class CumulativeScore(MeanOverValues):
    """Cumulative score CS(k), the share of absolute errors of at most k: `cumulative_score`.

    `update(predictions, targets)` takes what the function takes: (N,) each, where a target of NaN
    is missing.

    Args:
        k: The largest error that counts, above 0, in the unit of the values.
        **kwargs: Those of every `torchmetrics.Metric`.

    Raises:
        ValueError: If `k` is not above 0.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import CumulativeScore
        >>> metric = CumulativeScore(k=2)
        >>> metric.update(torch.tensor([10.0, 24.0]), torch.tensor([11.0, 20.0]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = True

    def __init__(self, k: float, **kwargs: Any):
        check_positive("k", k)
        super().__init__(options=(float(k),), **kwargs)
        self.k = k

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Take in a batch."""
        self._add(cumulative_score(predictions, targets, self.k), ~targets.isnan())
