"""The precision in which distributions, boxes and maps are computed."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, autocast, float32, float64


def upcast(value: Tensor) -> Tensor:
    """Return float64 as it is and every other real dtype as float32.

    Two hundred probabilities times ages lose up to half a month in bfloat16, and autocast on the
    CPU leaves softmax in it; so every function of the ldl wing starts here, and none uses a product
    of matrices, which autocast would take back to half precision. Half precision holds neither a
    box's area nor a coordinate beyond 2048 pixels.
    """
    return value if value.dtype == float64 else value.to(float32)


def without_autocast(device: str) -> AbstractContextManager[object]:
    """Matrix products keep the dtype of what they are given; the meta device knows no autocast."""
    return nullcontext() if device == "meta" else autocast(device, enabled=False)
