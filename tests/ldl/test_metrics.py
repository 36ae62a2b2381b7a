from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ldlcam.ldl import (
    cumulative_score,
    mean_absolute_error,
    mean_error,
    root_mean_squared_error,
)

NAN = torch.nan
ages = st.floats(0, 240) | st.just(NAN)
METRICS = pytest.mark.parametrize(
    "metric", [mean_absolute_error, lambda p, t: cumulative_score(p, t, 6)], ids=["mae", "cs"]
)


@given(st.lists(st.tuples(st.floats(0, 240), ages), min_size=1), st.floats(0.1, 300))
def test_against_numpy(pairs: list[tuple[float, float]], k: float) -> None:
    predictions, targets = torch.tensor(pairs, dtype=torch.float64).T
    present = [abs(p - t) for p, t in pairs if t == t]
    mae = mean_absolute_error(predictions, targets).item()
    score = cumulative_score(predictions, targets, k).item()
    if present:
        assert mae == pytest.approx(np.mean(present))
        assert score == pytest.approx(sum(error <= k for error in present) / len(present))
    else:
        assert np.isnan([mae, score]).all()


def test_an_error_of_k_counts() -> None:
    predictions, targets = torch.tensor([10.0, 6.0, 3.0]), torch.tensor([4.0, 0.0, 10.0])
    assert cumulative_score(predictions, targets, 6).item() == pytest.approx(2 / 3)


def test_a_prediction_that_is_nan_shows() -> None:
    predictions, targets = torch.tensor([1.0, NAN, NAN]), torch.tensor([1.0, 2.0, NAN])
    assert mean_absolute_error(predictions, targets).isnan()
    assert cumulative_score(predictions, targets, 1) == 0.5


@METRICS
@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        (torch.float32, torch.float32, torch.float32),
        (torch.float32, torch.int64, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_dtypes(
    metric: Callable[[Tensor, Tensor], Tensor],
    first: torch.dtype,
    second: torch.dtype,
    dtype: torch.dtype,
) -> None:
    predictions, targets = torch.tensor([100, 7]).to(first), torch.tensor([96, 37]).to(second)
    result = metric(predictions, targets)
    assert result.dtype == dtype
    assert result.item() in (17, 0.5)


@METRICS
def test_shapes_are_never_broadcast(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"predictions: expected shape \(N,\), got \(3, 1\)"):
        metric(torch.zeros(3, 1), torch.zeros(3))
    for size in ((3, 1), (1,), ()):
        with pytest.raises(ValueError, match=r"targets: expected shape \(N,\) with N = 3, got"):
            metric(torch.zeros(3), torch.zeros(size))


@pytest.mark.parametrize("k", [0, -1, NAN])
def test_refuses_k(k: float) -> None:
    with pytest.raises(ValueError, match="k: expected a finite number above 0"):
        cumulative_score(torch.zeros(3), torch.zeros(3), k)


@METRICS
def test_device(metric: Callable[[Tensor, Tensor], Tensor], device: torch.device) -> None:
    result = metric(torch.zeros(3, device=device), torch.ones(3, device=device))
    assert result.shape == ()
    assert result.device.type == device.type


@pytest.mark.parametrize("metric", [mean_absolute_error, root_mean_squared_error, mean_error])
def test_a_missing_target_has_no_gradient(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    predictions = torch.tensor([1.0, 5.0, NAN], requires_grad=True)
    metric(predictions, torch.tensor([3.0, NAN, NAN])).backward()
    assert predictions.grad is not None
    assert predictions.grad[0].abs() == 1
    assert predictions.grad[1:].tolist() == [0, 0]


def test_perfect_predictions_have_no_gradient() -> None:
    predictions = torch.tensor([1.0, 5.0], requires_grad=True)
    error = root_mean_squared_error(predictions, predictions.detach())
    error.backward()
    assert error == 0
    assert predictions.grad is not None
    assert predictions.grad.tolist() == [0, 0]
