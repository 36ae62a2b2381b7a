"""What the metrics share that are means over images."""

from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from ldlcam.metrics._exact import ExactMetric


class MeanOverImages(ExactMetric):
    """Means of all updates, each weighed by how many of its images count.

    The state is a sum and a count, which add up over processes. It is in float32, like those of
    torchmetrics; `set_dtype(torch.float64)` sums in float64.
    """

    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, *shape: int, options: tuple[object, ...] = (), **kwargs: Any):
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(shape, dtype=torch.float32), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        # A MetricCollection lets metrics share their states if these have equal names, and equal
        # values after one batch. This one holds nothing: its name is equal only for metrics of one
        # class and equal options.
        kind = type(self)
        digest = sha256(f"{kind.__module__}.{kind.__qualname__}{options}".encode()).hexdigest()
        name = f"only_{kind.__name__}_{digest[:16]}"
        self.add_state(name, torch.zeros((), dtype=torch.float32), dist_reduce_fx="sum")

    def _add(self, means: Tensor, counted: Tensor) -> None:
        """Take in the means over the images that count, (N,) bool."""
        count = counted.sum()
        # Without any, the mean may be NaN.
        self.total = self.total + torch.where(count > 0, means * count, 0).to(self.total.dtype)
        self.count = self.count + count

    def compute(self) -> Any:
        """The mean over all images that count; 0 without any."""
        return self.total / self.count.clamp(min=1)


class MeanOverValues(MeanOverImages):
    """The same over values, of which without any nothing can be said."""

    def compute(self) -> Any:
        """The mean over all values that are present; NaN without any."""
        return self.total / self.count
