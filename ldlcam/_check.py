"""Checks of arguments, in one style: the name, what was expected, what came."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

_KINDS: dict[str, Callable[[torch.dtype], bool]] = {
    "any": lambda dtype: True,
    "floating": lambda dtype: dtype.is_floating_point,
    "integer": lambda dtype: (
        not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    ),
    "real": lambda dtype: not (dtype.is_complex or dtype == torch.bool),
    "bool": lambda dtype: dtype == torch.bool,
}


def check_tensor(
    name: str, value: object, shape: str = "", dtype: str = "any", **sizes: int
) -> None:
    """Check that an argument is a tensor of a symbolic shape and a kind of dtype.

    Args:
        name: The argument's name, for the message.
        value: The argument.
        shape: Axes separated by spaces, such as `"N C h w"` or `"N 4"`; a number is that very
            size, a letter any size, `"..."` in front any axes; empty for any shape.
        dtype: `"any"`, `"floating"`, `"integer"`, `"real"` (floating or integer) or `"bool"`.
        **sizes: Sizes that letters of the shape must have, such as `N=len(images)`.

    Raises:
        TypeError: If the argument is not a tensor or has another kind of dtype.
        ValueError: If it has another shape.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    if not _KINDS[dtype](value.dtype):
        raise TypeError(f"{name}: expected a tensor of {dtype} dtype, got {value.dtype}")
    if shape and not _fits(value, shape.split(), sizes):
        expected = ", ".join(shape.split()) + ("," if " " not in shape else "")
        known = ", ".join(f"{axis} = {size}" for axis, size in sizes.items())
        where = f" with {known}" if known else ""
        raise ValueError(f"{name}: expected shape ({expected}){where}, got {tuple(value.shape)}")


def _fits(value: Tensor, axes: list[str], sizes: dict[str, int]) -> bool:
    shape = tuple(value.shape)
    if axes[0] == "...":
        axes = axes[1:]
        shape = shape[max(len(shape) - len(axes), 0) :]
    if len(shape) != len(axes):
        return False
    for axis, size in zip(axes, shape, strict=True):
        wanted = int(axis) if axis.isdigit() else sizes.get(axis)
        if wanted is not None and size != wanted:
            return False
    return True


def check_choice(name: str, value: object, options: Sequence[str]) -> None:
    """Check that an argument is one of a few names.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name}: expected one of {listed}, got {value!r}")


def check_mapping(name: str, value: object) -> None:
    """Check that an argument holds at least one thing by its name.

    Raises:
        TypeError: If it is no mapping.
        ValueError: If it is empty.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping by names, got {type(value).__name__}")
    if not value:
        raise ValueError(f"{name}: expected at least one, got none")


def is_number(value: object) -> bool:
    """Whether a value is one number: Python's, numpy's, a compiler's, or a tensor ()."""
    if isinstance(value, int | float):  # a compiler's numbers have a type, and no attributes
        return True
    single = not getattr(value, "ndim", 0)
    return single and (hasattr(value, "__float__") or hasattr(value, "__index__"))


def check_number(
    name: str, value: float, expected: str = "a number", fits: Callable[[float], bool] | None = None
) -> None:
    """Check that an argument is one number, and in a range.

    Args:
        name: The argument's name, for the message.
        value: The argument.
        expected: What it should be, for the message.
        fits: Whether a number is in the range; None takes any.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of the range.
    """
    number = is_number(value)
    if not number or (fits is not None and not fits(value)):
        error = ValueError if number else TypeError
        raise error(f"{name}: expected {expected}, got {value!r}")


def check_positive(name: str, value: float) -> None:
    """Check that a number is finite and above zero.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of the range.
    """
    check_number(name, value, "a finite number above 0", lambda number: 0 < number < math.inf)


def check_nonnegative(name: str, value: float) -> None:
    """Check that a number is finite and at least zero.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of the range.
    """
    expected = "a finite number of at least 0"
    check_number(name, value, expected, lambda number: 0 <= number < math.inf)


def is_count(value: object, least: int = 1) -> bool:
    """Whether a value is a whole number that is large enough."""
    # Whole numbers are what can be an index: numpy's and a compiler's are among them. All tensors
    # have the method.
    if not is_number(value) or (isinstance(value, Tensor) and not _KINDS["integer"](value.dtype)):
        return False
    return hasattr(value, "__index__") and value >= least  # type: ignore[operator]


def check_count(name: str, value: int, least: int = 1) -> None:
    """Check that a number is whole and large enough.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not whole or too small.
    """
    expected = f"an integer of at least {least}"
    check_number(name, value, expected, lambda number: is_count(number, least))


def check_fraction(name: str, value: float) -> None:
    """Check that a number is in (0, 1].

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of the range.
    """
    check_number(name, value, "a number in (0, 1]", lambda number: 0 < number <= 1)


def check_open_fraction(name: str, value: float) -> None:
    """Check that a number is in (0, 1).

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is out of the range.
    """
    check_number(name, value, "a number in (0, 1)", lambda number: 0 < number < 1)


def check_sequence(name: str, value: object, expected: str = "a sequence of numbers") -> None:
    """Check that an argument is a list of things, an array or the like, and not a single one.

    Raises:
        TypeError: If it is not.
    """
    if is_number(value) or isinstance(value, str) or not hasattr(value, "__len__"):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")


def check_same_length(**tensors: Tensor) -> None:
    """Check that tensors have the same first size, such as boxes and their targets.

    Raises:
        ValueError: If one differs from the first.
    """
    names = list(tensors)
    expected = tensors[names[0]].shape[0]
    for name in names[1:]:
        length = tensors[name].shape[0]
        if length != expected:
            raise ValueError(f"{name}: expected length {expected} as {names[0]} has, got {length}")
