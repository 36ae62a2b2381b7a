"""Operators that ONNX lacks, by those that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class OnnxOperators(TorchFunctionMode):
    """A context in which torch uses the operators below in place of its own."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return REPLACEMENTS.get(func, func)(*args, **(kwargs or {}))


def searchsorted(table: Tensor, values: Tensor, *, right: bool = False) -> Tensor:
    """`torch.searchsorted`, by counting the entries before each value."""
    entries, values = table.unsqueeze(-2), values.unsqueeze(-1)
    reached = entries > values if right else entries >= values
    return (~reached).sum(-1)


def frexp(values: Tensor) -> tuple[Tensor, Tensor]:
    """`torch.frexp` of finite values, by the logarithm."""
    sizes = values.abs()
    empty = sizes == 0
    sizes = torch.where(empty, 0.5, sizes)
    exponents = sizes.log2().floor() + 1
    # The logarithm is rounded, so that it can be a whole number next to one.
    exponents = torch.where(sizes >= exponents.exp2(), exponents + 1, exponents)
    exponents = torch.where(sizes < (exponents - 1).exp2(), exponents - 1, exponents)
    # In two steps: the smallest numbers' factor is beyond the range.
    halves = (exponents / 2).floor()
    mantissas = values * (-halves).exp2() * (halves - exponents).exp2()
    return mantissas, exponents.to(torch.int32)


def nextafter(values: Tensor, towards: Tensor) -> Tensor:
    """`torch.nextafter` of finite values."""
    numbers = torch.finfo(values.dtype)
    mantissas, exponents = frexp(values)
    gaps = numbers.eps * (exponents - 1).to(values.dtype).exp2()
    # Numbers below a power of two are twice as close together as those above it.
    inwards = (towards > values) != (values > 0)
    gaps = torch.where(inwards & (mantissas.abs() == 0.5), gaps / 2, gaps)
    least = numbers.smallest_normal * numbers.eps
    gaps = torch.where(values == 0, least, gaps.clamp(min=least))
    moved = values + torch.where(towards > values, gaps, -gaps)
    return torch.where(towards == values, values, moved)


REPLACEMENTS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.searchsorted: searchsorted,
    torch.frexp: frexp,
    torch.nextafter: nextafter,
}
