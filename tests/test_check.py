from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ldlcam import _check

Check = Callable[[str, Any], None]
OF_FRACTIONS: list[Check] = [
    _check.check_number,
    _check.check_positive,
    _check.check_nonnegative,
    _check.check_fraction,
    _check.check_open_fraction,
]


class TestCheckTensor:
    @pytest.mark.parametrize(
        ("shape", "size"),
        [
            ("", (3, 1, 2)),
            ("N", (0,)),
            ("N K", (8, 240)),
            ("N 4", (5, 4)),
            ("... K", (7,)),
            ("... K", (2, 3, 7)),
            ("... 3 4", (2, 3, 4)),
            ("... ", (2, 3)),
        ],
    )
    def test_accepts(self, shape: str, size: tuple[int, ...]) -> None:
        _check.check_tensor("x", torch.zeros(size), shape)

    @pytest.mark.parametrize(
        ("shape", "size", "expected"),
        [
            ("N", (8, 1), "x: expected shape (N,), got (8, 1)"),
            ("N", (), "x: expected shape (N,), got ()"),
            ("N 4", (8, 5), "x: expected shape (N, 4), got (8, 5)"),
            ("... K", (), "x: expected shape (..., K), got ()"),
            ("... 3 4", (4,), "x: expected shape (..., 3, 4), got (4,)"),
        ],
    )
    def test_refuses_shapes(self, shape: str, size: tuple[int, ...], expected: str) -> None:
        with pytest.raises(ValueError) as caught:
            _check.check_tensor("x", torch.zeros(size), shape)
        assert str(caught.value) == expected

    def test_sizes_of_letters(self) -> None:
        _check.check_tensor("x", torch.zeros(2, 3), "N K", N=2, K=3)
        with pytest.raises(ValueError) as caught:
            _check.check_tensor("x", torch.zeros(2, 3), "N K", K=4)
        assert str(caught.value) == "x: expected shape (N, K) with K = 4, got (2, 3)"

    @pytest.mark.parametrize(
        ("kind", "accepted"),
        [
            ("any", {torch.float16, torch.float64, torch.int64, torch.bool, torch.complex64}),
            ("floating", {torch.float16, torch.float64}),
            ("integer", {torch.int64}),
            ("real", {torch.float16, torch.float64, torch.int64}),
            ("bool", {torch.bool}),
        ],
    )
    def test_dtypes(self, kind: str, accepted: set[torch.dtype]) -> None:
        for dtype in (torch.float16, torch.float64, torch.int64, torch.bool, torch.complex64):
            value = torch.zeros(2, dtype=dtype)
            if dtype in accepted:
                _check.check_tensor("x", value, "N", kind)
            else:
                with pytest.raises(TypeError, match=f"x: expected a tensor of {kind} dtype, got"):
                    _check.check_tensor("x", value, "N", kind)

    def test_refuses_what_is_no_tensor(self) -> None:
        with pytest.raises(TypeError, match=r"^x: expected a tensor, got list$"):
            _check.check_tensor("x", [1.0], "N")

    def test_compiles_to_one_graph(self) -> None:
        @torch.compile(fullgraph=True, backend="eager", dynamic=True)
        def double(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            _check.check_tensor("x", x, "N K", "floating", K=4)
            _check.check_tensor("y", y, "N", "real", N=len(x))
            _check.check_same_length(x=x, y=y)
            _check.check_choice("z", "a", ("a", "b"))
            return 2 * x

        @torch.compile(fullgraph=True, backend="eager", dynamic=True)
        def times(x: torch.Tensor, share: float, count: int) -> torch.Tensor:
            for check in OF_FRACTIONS:
                check("share", share)
            _check.check_count("count", count)
            _check.check_count("x", len(x))
            return share * count * x

        for n in (2, 3):
            assert double(torch.ones(n, 4), torch.ones(n)).sum() == 8 * n
            assert times(torch.ones(n), n / 4, n).sum() == n**3 / 4


def test_check_choice() -> None:
    _check.check_choice("pool", "avg", ("avg", "max"))
    with pytest.raises(ValueError) as caught:
        _check.check_choice("pool", "mean", ("avg", "max"))
    assert str(caught.value) == "pool: expected one of 'avg', 'max', got 'mean'"
    for value in (None, 3, ["avg"], np.array(["avg", "max"]), torch.zeros(2)):
        with pytest.raises(ValueError, match="pool: expected one of 'avg', 'max', got"):
            _check.check_choice("pool", value, ("avg", "max"))


NO_NUMBERS = [
    None,
    "0.5",
    [0.5],
    np.array([0.5, 0.2]),
    torch.tensor([0.5, 0.2]),
    1j,
    torch.nn.ReLU(),
]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("check", [*OF_FRACTIONS, _check.check_count])
def test_what_is_no_number(check: Check, value: object) -> None:
    with pytest.raises(TypeError, match=r"^x: expected an? .*(number|integer).*, got "):
        check("x", value)
    assert not _check.is_count(value)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_numbers(value: float) -> None:
    for check in OF_FRACTIONS:
        check("x", value)
    with pytest.raises(ValueError, match=r"x: expected an integer of at least 1, got .*0\.5"):
        _check.check_count("x", value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [2, np.int64(2), torch.tensor(2)])
def test_counts(value: int) -> None:
    _check.check_count("x", value)
    _check.check_positive("x", value)
    with pytest.raises(ValueError, match=r"x: expected an integer of at least 3, got .*2"):
        _check.check_count("x", value, 3)


@pytest.mark.parametrize("value", [2.0, np.float64(2), torch.tensor(2.0), torch.tensor(True)])
def test_counts_are_integers(value: Any) -> None:
    with pytest.raises(ValueError, match="x: expected an integer of at least 1, got"):
        _check.check_count("x", value)


def test_check_sequence() -> None:
    for value in ([], (1, 2), range(3), np.zeros(2), torch.zeros(2)):
        _check.check_sequence("x", value)
    for value in (None, 0.5, "0.5", np.float32(1), torch.tensor(1.0), torch.nn.ReLU()):
        with pytest.raises(TypeError, match=r"^x: expected a sequence of numbers, got \w+$"):
            _check.check_sequence("x", value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_check_positive(value: float) -> None:
    _check.check_positive("sigma", 1e-9)
    with pytest.raises(ValueError, match="sigma: expected a finite number above 0, got"):
        _check.check_positive("sigma", value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), 1.1])
def test_check_fraction(value: float) -> None:
    _check.check_fraction("level", 1)
    with pytest.raises(ValueError, match=r"level: expected a number in \(0, 1\], got"):
        _check.check_fraction("level", value)


def test_check_same_length() -> None:
    _check.check_same_length(boxes=torch.zeros(3, 4), valid=torch.zeros(3))
    with pytest.raises(ValueError, match="valid: expected length 3 as boxes has, got 2"):
        _check.check_same_length(boxes=torch.zeros(3, 4), valid=torch.zeros(2))
