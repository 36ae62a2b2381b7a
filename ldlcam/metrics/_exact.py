"""What all metrics share: states that keep their precision."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torchmetrics import Metric


class ExactMetric(Metric):
    """A metric whose state stays as precise as it is when the model that has it is cast.

    A sum over many images in half precision stops growing. Only `set_dtype` changes the dtype.
    """

    is_differentiable = False

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "ExactMetric":
        def moved(value: Tensor) -> Tensor:
            there = fn(value)
            return there if there.dtype == value.dtype else value.to(there.device)

        super()._apply(fn if self._dtype_convert else moved, *args, **kwargs)
        return self
