import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from torch import Tensor, nn
from torch.autograd import gradcheck

from ldlcam.cam import GeneralizedMeanPool, LogSumExpPool
from ldlcam.cam.pooling import POOLS, make_pool
from tests.cam.maps import seeds, sides

SMOOTH = [LogSumExpPool, GeneralizedMeanPool]
sharpnesses = st.floats(0.01, 100)


def positive(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64) + 0.01


@given(sides, sides, sharpnesses, seeds)
def test_log_sum_exp_is_that_of_scipy(height: int, width: int, r: float, seed: int) -> None:
    torch.manual_seed(seed)
    features = 5 * torch.randn(2, 3, height, width, dtype=torch.float64)
    expected = special.logsumexp(r * features.flatten(2).numpy(), axis=2) - math.log(height * width)
    torch.testing.assert_close(LogSumExpPool(r)(features), torch.from_numpy(expected / r))


@given(sides, sides, st.floats(0.5, 8), seeds)
def test_generalized_mean_is_that_of_torch(height: int, width: int, p: float, seed: int) -> None:
    torch.manual_seed(seed)
    features = positive(2, 3, height, width)
    sums = nn.functional.lp_pool2d(features, p, (height, width)).flatten(1)
    expected = sums / (height * width) ** (1 / p)
    torch.testing.assert_close(GeneralizedMeanPool(p).double()(features), expected)


@pytest.mark.parametrize("kind", SMOOTH)
@given(st.floats(0.5, 20), seeds)
def test_smooth_maxima_lie_between_mean_and_maximum(kind: type, value: float, seed: int) -> None:
    torch.manual_seed(seed)
    features = positive(3, 2, 4, 5)
    low, mean, high = (kind(v).double()(features) for v in (max(1e-3, value / 4), value, 4 * value))
    assert (low <= mean + 1e-9).all()
    assert (mean <= high + 1e-9).all()
    assert (high <= features.amax((2, 3)) + 1e-9).all()


def test_limits() -> None:
    features = positive(2, 3, 4, 5)
    average, highest = features.mean((2, 3)), features.amax((2, 3))
    torch.testing.assert_close(GeneralizedMeanPool(1.0).double()(features), average)
    torch.testing.assert_close(
        GeneralizedMeanPool(5000.0).double()(features), highest, rtol=1e-2, atol=0
    )
    torch.testing.assert_close(LogSumExpPool(1e-4)(features), average, rtol=1e-3, atol=0)
    torch.testing.assert_close(LogSumExpPool(1e4)(features), highest, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("level", [0.0, 1e-4, 1.0, 3e4])
def test_equal_values_pool_to_themselves(name: str, dtype: torch.dtype, level: float) -> None:
    features = torch.full((1, 2, 5, 7), level, dtype=dtype, requires_grad=True)
    pooled = make_pool(name)(features)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled, features[:, :, 0, 0], atol=2e-6, rtol=1e-2)
    pooled.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_features_below_the_floor_count_as_the_floor() -> None:
    pool = GeneralizedMeanPool(2.0, learnable=False, floor=0.5)
    low, at = torch.tensor([[[[-3.0, 0.0, 2.0]]]]), torch.tensor([[[[0.5, 0.5, 2.0]]]])
    assert torch.equal(pool(low), pool(at))
    filters = torch.ones(1, 1)
    assert torch.equal(pool.evidence(low, filters), pool.evidence(at, filters))


@pytest.mark.parametrize("kind", SMOOTH)
def test_gradients(kind: type) -> None:
    features = positive(2, 3, 2, 3).requires_grad_()
    filters = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    pool = kind(3.0).double()
    assert gradcheck(pool, (features,))
    assert gradcheck(pool.evidence, (features, filters))


def test_the_power_is_learned() -> None:
    features = positive(2, 3, 4, 4)

    def pooled(power: Tensor) -> Tensor:
        pool = GeneralizedMeanPool().double()
        return torch.func.functional_call(pool, {"power": power}, (features,))

    assert gradcheck(pooled, (torch.tensor(2.5, dtype=torch.float64, requires_grad=True),))
    assert not list(GeneralizedMeanPool(learnable=False).parameters())


@pytest.mark.parametrize(
    ("pool", "printed"),
    [
        (LogSumExpPool(2.5), "LogSumExpPool(sharpness=2.5)"),
        (GeneralizedMeanPool(), "GeneralizedMeanPool(power=3, learnable=True, floor=1e-06)"),
    ],
)
def test_prints(pool: nn.Module, printed: str) -> None:
    assert repr(pool) == printed
    assert repr(pool.to("meta")).startswith(printed[:20])


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_errors(value: float) -> None:
    for make, name in (
        (LogSumExpPool, "sharpness"),
        (GeneralizedMeanPool, "power"),
        (_with_floor, "floor"),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected a finite number above 0, got"):
            make(value)


def _with_floor(floor: float) -> GeneralizedMeanPool:
    return GeneralizedMeanPool(floor=floor)


@pytest.mark.parametrize("kind", SMOOTH)
def test_errors_of_features(kind: type) -> None:
    with pytest.raises(ValueError, match=r"features: expected shape \(N, C, h, w\), got \(8, 5, 6"):
        kind()(torch.rand(8, 5, 6))
    with pytest.raises(TypeError, match="features: expected a tensor of floating dtype, got"):
        kind()(torch.ones(2, 8, 5, 6, dtype=torch.int64))
    with pytest.raises(TypeError, match="features: expected a tensor, got list"):
        kind()([[1.0]])


@pytest.mark.parametrize("learnable", [True, False])
def test_a_pool_made_without_values_is_given_its_start(learnable: bool) -> None:
    with torch.device("meta"):
        pool = GeneralizedMeanPool(4.0, learnable=learnable)
    pool.to_empty(device="cpu")
    pool.reset_parameters()
    assert pool.power.item() == 4
