from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ldlcam.ldl import (
    Bins,
    LabelDistribution,
    coverage_by_level,
    expected_calibration_error,
    interval_coverage,
    mean_crps,
    probability_integral_transform,
)
from tests.ldl import oracles

UNEVEN = Bins.from_centers([0, 1, 2, 4, 8, 12, 20], edges=[-1, 0.5, 1.5, 3, 6, 10, 14, 30])


def predict(count: int) -> LabelDistribution:
    return LabelDistribution(torch.randn(count, 7, dtype=torch.float64), UNEVEN)


def gaps(targets: Tensor) -> Tensor:
    return torch.where(torch.arange(len(targets)) % 3 == 1, torch.nan, targets)


def test_coverage_by_hand() -> None:
    low, high = torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    targets = torch.tensor([1.0, 2.5, torch.nan, -0.1])
    assert interval_coverage(low, high, targets).item() == pytest.approx(1 / 3)
    assert interval_coverage(low[:0], high[:0], targets[:0]).isnan()
    assert interval_coverage(low.double(), high.double(), targets).dtype == torch.float64


def test_crps_against_the_energy_form() -> None:
    predicted, targets = predict(30), 36 * torch.rand(30, dtype=torch.float64) - 4
    centers = UNEVEN.centers.double().numpy()
    each = [
        oracles.crps(value, probs.numpy(), centers)
        for value, probs in zip(targets.tolist(), predicted.probs, strict=True)
    ]
    np.testing.assert_allclose(predicted.crps(targets).numpy(), each, atol=1e-12)
    assert mean_crps(predicted, targets).item() == pytest.approx(np.mean(each))
    present = ~gaps(targets).isnan().numpy()
    found = mean_crps(predicted, gaps(targets)).item()
    assert found == pytest.approx(np.mean(np.array(each)[present]))


def test_what_right_predictions_have() -> None:
    """Values drawn from the predictions themselves lie evenly in them, at every level."""
    predicted = predict(4000)
    targets = predicted.sample()
    places = probability_integral_transform(predicted, targets)
    assert stats.kstest(places.numpy(), "uniform").pvalue > 1e-3
    levels = torch.tensor([0.1, 0.5, 0.8, 0.95])
    shares = coverage_by_level(predicted, targets, levels)
    torch.testing.assert_close(shares.float(), levels, atol=0.03, rtol=0)
    assert expected_calibration_error(predicted, targets) < 0.02


def test_levels_are_those_of_the_intervals() -> None:
    predicted, targets = predict(500), 31 * torch.rand(500, dtype=torch.float64) - 1
    levels = [0.25, 0.5, 0.9]
    found = coverage_by_level(predicted, gaps(targets), levels)
    for level, share in zip(levels, found, strict=True):
        low, high = predicted.interval(level)
        want = interval_coverage(low, high, gaps(targets))
        assert share.item() == pytest.approx(want.item())
    error = expected_calibration_error(predicted, gaps(targets), levels)
    want = np.mean([abs(share.item() - level) for share, level in zip(found, levels, strict=True)])
    assert error.item() == pytest.approx(want)


def test_too_sure_predictions_show() -> None:
    """Half as wide as due: the 90% interval of a Gaussian holds 59%."""
    bins = Bins(1, 240)
    means = 60 + 120 * torch.rand(5000, dtype=torch.float64)
    targets = means + 10 * torch.randn(5000, dtype=torch.float64)
    logits = -((bins.centers.double() - means[:, None]) / 5).square() / 2
    predicted = LabelDistribution(logits, bins)
    want = 2 * stats.norm.cdf(stats.norm.ppf(0.95) / 2) - 1
    assert coverage_by_level(predicted, targets, [0.9]).item() == pytest.approx(want, abs=0.02)
    assert expected_calibration_error(predicted, targets) > 0.15


def test_nothing_present() -> None:
    predicted, targets = predict(2), torch.full((2,), torch.nan)
    assert mean_crps(predicted, targets).isnan()
    assert probability_integral_transform(predicted, targets).isnan().all()
    assert coverage_by_level(predicted, targets, [0.5]).isnan().all()
    assert expected_calibration_error(predicted, targets).isnan()


def test_shapes_are_never_broadcast() -> None:
    for metric in (
        mean_crps,
        probability_integral_transform,
        coverage_by_level,
        expected_calibration_error,
    ):
        with pytest.raises(ValueError, match=r"targets: expected shape \(N,\) with N = 3, got"):
            metric(predict(3), torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"high: expected shape \(N,\) with N = 3"):
        interval_coverage(torch.zeros(3), torch.zeros(2), torch.zeros(3))


def test_device(device: torch.device) -> None:
    bins = Bins(1, 240).to(device)
    predicted = LabelDistribution(torch.zeros(3, 240, device=device), bins)
    targets = torch.ones(3, device=device)
    for found in (
        mean_crps(predicted, targets),
        expected_calibration_error(predicted, targets),
        interval_coverage(targets, targets, targets),
    ):
        assert found.shape == ()
        assert found.device.type == device.type
    assert probability_integral_transform(predicted, targets).shape == (3,)


def test_what_lies_outside_of_the_bins_is_in_no_interval() -> None:
    predicted = LabelDistribution(torch.zeros(5, 240), Bins(1, 240))
    targets = torch.tensor([-10.0, 0.5, 120.0, 240.5, 250.0])
    assert coverage_by_level(predicted, targets, [1.0]) == 0.6
    assert interval_coverage(*predicted.interval(1.0), targets) == 0.6
    with pytest.raises(ValueError, match=r"levels: expected all in \[0, 1\], got \[90, 0.5\]"):
        coverage_by_level(predicted, targets, [90, 0.5])


@pytest.mark.parametrize("at", [0, 1, 2])
def test_coverage_has_the_finest_dtype(at: int) -> None:
    given = [torch.ones(2), torch.ones(2), torch.ones(2)]
    given[at] = given[at].double()
    assert interval_coverage(*given).dtype == torch.float64


@pytest.mark.parametrize("metric", [coverage_by_level, expected_calibration_error])
@pytest.mark.parametrize("levels", [[], torch.ones(0)])
def test_without_levels_nothing_is_measured(metric: Any, levels: Any) -> None:
    with pytest.raises(ValueError, match="levels: expected at least one, got none"):
        metric(predict(2), torch.ones(2), levels)


@pytest.mark.parametrize(
    "metric",
    [mean_crps, probability_integral_transform, coverage_by_level, expected_calibration_error],
)
def test_logits_are_no_distribution(metric: Any) -> None:
    with pytest.raises(TypeError, match="predicted: expected a LabelDistribution, got Tensor"):
        metric(torch.zeros(2, 7), torch.ones(2))


def test_a_missing_target_has_no_gradient() -> None:
    for metric in (
        mean_crps,
        lambda *pair: probability_integral_transform(*pair).nansum(),
    ):
        logits = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
        targets = torch.tensor([3.0, torch.nan, 9.0])
        metric(LabelDistribution(logits, UNEVEN), targets).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert (logits.grad != 0).any(-1).tolist() == [True, False, True]
