"""Any metric by group, over batches and processes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric

from ldlcam._check import check_count
from ldlcam.ldl.resampling import split_samples


class ByGroup(WrapperMetric):
    """One metric for each group of samples, such as sexes or bands of age: `ldlcam.by_group`.

    `update(group, *samples)` takes the group of each sample (N,), integer, and what the metric
    takes, of N samples each; `compute()` gives a list of what the metrics give. Samples of other
    groups than 0 to groups - 1 are left out.

    Args:
        metric: The metric; it is copied for each group.
        groups: Number of groups.
        **kwargs: Those of every `torchmetrics.Metric`.

    Raises:
        ValueError: If `groups` is not at least 1.

    Example:
        >>> import torch
        >>> from ldlcam.metrics import ByGroup, MeanAbsoluteError
        >>> metric = ByGroup(MeanAbsoluteError(), groups=2)
        >>> sex = torch.tensor([0, 1, 1])
        >>> metric.update(sex, torch.tensor([5.0, 7.0, 9.0]), torch.tensor([6.0, 5.0, 9.0]))
        >>> metric.compute()
        [tensor(1.), tensor(1.)]
    """

    def __init__(self, metric: Metric, groups: int, **kwargs: Any):
        check_count("groups", groups)
        super().__init__(**kwargs)
        self.metrics = nn.ModuleList(metric.clone() for _ in range(groups))

    def update(self, group: Tensor, *samples: Any) -> None:
        """Take in a batch."""
        for metric, chosen in self._split(group, samples):
            metric.update(*chosen)

    def forward(self, group: Tensor, *samples: Any) -> list[Any]:
        """Take in a batch, and return what the metrics give for it alone."""
        return [metric(*chosen) for metric, chosen in self._split(group, samples)]

    def compute(self) -> list[Any]:
        """What the metric of each group gives, in order."""
        return [metric.compute() for metric in self._metrics()]

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        for metric in self._metrics():
            metric.reset()

    def set_dtype(self, dst_type: str | torch.dtype) -> "ByGroup":
        """Cast what the metrics have summed, and go on in this dtype."""
        super().set_dtype(dst_type)
        for metric in self._metrics():
            metric.set_dtype(dst_type)
        return self

    def persistent(self, mode: bool = False) -> None:
        """Choose whether what the metrics have summed is part of the `state_dict`."""
        super().persistent(mode)
        for metric in self._metrics():
            metric.persistent(mode)

    def _metrics(self) -> list[Metric]:
        return [metric for metric in self.metrics if isinstance(metric, Metric)]

    def _split(self, group: Tensor, samples: tuple[Any, ...]) -> Iterator[tuple[Metric, list[Any]]]:
        metrics = self._metrics()
        return zip(metrics, split_samples(group, samples, len(metrics)), strict=True)
