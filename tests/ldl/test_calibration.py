import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ldlcam.ldl import Bins, LabelDistribution, LinearBiasCorrection, TemperatureScaling

MONTHS = Bins(1, 240, unit="months")


def bells(means: Tensor, spread: float) -> Tensor:
    """Logits of Gaussians around the means."""
    centers = MONTHS.centers.to(means.dtype)
    return -((centers - means[:, None]) / spread).square() / 2


class TestTemperature:
    @pytest.mark.parametrize("believed", [4.0, 10.0, 25.0])
    def test_the_spread_becomes_the_true_one(self, believed: float) -> None:
        """A Gaussian's logits divided by t are those of one sqrt(t) times as wide."""
        means = 70 + 100 * torch.rand(20000, dtype=torch.float64)
        ages = means + 10 * torch.randn(20000, dtype=torch.float64)
        scaling = TemperatureScaling().fit(bells(means, believed), ages, MONTHS)
        assert scaling.temperature.item() == pytest.approx((10 / believed) ** 2, rel=0.05)

    def test_no_other_temperature_is_more_likely(self) -> None:
        logits, target = torch.randn(300, 240, dtype=torch.float64), 240 * torch.rand(300)
        logits = logits + bells(target.double() + 20 * torch.randn(300), 9.0)

        def unlikely(temperature: float) -> float:
            scaled = (logits / temperature).log_softmax(-1)
            return -scaled.gather(1, MONTHS.index(target)[:, None]).mean().item()

        best = TemperatureScaling().fit(logits, target, MONTHS).temperature.item()
        assert all(unlikely(best) <= unlikely(best * factor) for factor in (0.9, 0.99, 1.01, 1.1))

    def test_missing_and_outlying_targets(self) -> None:
        logits = bells(torch.full((4,), 100.0), 10.0)
        target = torch.tensor([100.0, 110.0, torch.nan, torch.inf])
        fitted = TemperatureScaling().fit(logits, target, MONTHS)
        alone = TemperatureScaling().fit(logits[:2], target[:2], MONTHS)
        assert torch.equal(fitted.temperature, alone.temperature)
        assert TemperatureScaling().fit(logits[2:], target[2:], MONTHS).temperature == 1
        far = TemperatureScaling().fit(logits[:1], torch.tensor([1e6]), MONTHS)
        assert far.temperature.isfinite()
        assert far.temperature > 1

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_scaling(self, dtype: torch.dtype) -> None:
        logits = torch.randn(3, 240).to(dtype)
        scaling = TemperatureScaling()
        scaling.temperature.fill_(2)
        found = scaling(logits)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.equal(found, logits.to(found.dtype) / 2)
        tempered = LabelDistribution(logits, MONTHS).tempered(2.0)
        torch.testing.assert_close(tempered.mean, LabelDistribution(found, MONTHS).mean)

    def test_it_is_saved(self) -> None:
        means = 100 + 10 * torch.randn(50)
        scaling = TemperatureScaling().fit(bells(means, 5.0), torch.full((50,), 100.0), MONTHS)
        loaded = TemperatureScaling()
        loaded.load_state_dict(scaling.state_dict())
        assert torch.equal(loaded.temperature, scaling.temperature)
        assert repr(loaded) == f"TemperatureScaling(temperature={loaded.temperature.item():.4g})"

    def test_each_distribution_can_have_its_own(self) -> None:
        predicted = LabelDistribution(torch.randn(2, 240), MONTHS)
        each = predicted.tempered(torch.tensor([1.0, 3.0]))
        torch.testing.assert_close(each.probs[0], predicted.probs[0])
        torch.testing.assert_close(each.probs[1], predicted[1].tempered(3.0).probs)

    def test_arguments(self) -> None:
        with pytest.raises(ValueError, match=r"logits: expected shape \(N, K\) with K = 240"):
            TemperatureScaling().fit(torch.zeros(2, 239), torch.zeros(2), MONTHS)
        with pytest.raises(TypeError, match="bins: expected a Bins, got int"):
            TemperatureScaling().fit(torch.zeros(2, 9), torch.zeros(2), 9)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"target: expected shape \(N,\) with N = 2"):
            TemperatureScaling().fit(torch.zeros(2, 240), torch.zeros(2, 1), MONTHS)

    def test_device(self, device: torch.device) -> None:
        logits = torch.zeros(3, 240, device=device)
        assert TemperatureScaling().to(device)(logits).device.type == device.type


class TestBiasCorrection:
    def pairs(self) -> tuple[Tensor, Tensor]:
        targets = 240 * torch.rand(5000, dtype=torch.float64)
        return 30 + 0.7 * targets + 8 * torch.randn(5000, dtype=torch.float64), targets

    def test_lines_against_scipy(self) -> None:
        predictions, targets = self.pairs()
        direct = LinearBiasCorrection().fit(predictions, targets)
        line = stats.linregress(predictions.numpy(), targets.numpy())
        assert direct.slope.item() == pytest.approx(line.slope, rel=1e-6)
        assert direct.intercept.item() == pytest.approx(line.intercept, rel=1e-6)
        inverse = LinearBiasCorrection("prediction").fit(predictions, targets)
        line = stats.linregress(targets.numpy(), predictions.numpy())
        assert inverse.slope.item() == pytest.approx(1 / line.slope, rel=1e-6)
        assert inverse.intercept.item() == pytest.approx(-line.intercept / line.slope, rel=1e-6)

    def test_what_each_line_is_for(self) -> None:
        predictions, targets = self.pairs()
        errors = {
            line: LinearBiasCorrection(line).fit(predictions, targets)(predictions) - targets
            for line in ("target", "prediction")
        }
        no_trend = np.corrcoef(errors["prediction"].numpy(), targets.numpy())[0, 1]
        assert no_trend == pytest.approx(0, abs=1e-5)
        assert errors["target"].square().mean() < errors["prediction"].square().mean()
        assert all(abs(error.mean().item()) < 1e-4 for error in errors.values())

    @pytest.mark.parametrize("line", ["target", "prediction"])
    def test_where_there_is_no_line(self, line: str) -> None:
        for predictions, targets, shift in (
            ([], [], 0.0),
            ([5.0], [7.0], 2.0),
            ([5.0, 5.0], [6.0, 10.0], 3.0),
            ([math.nan, 5.0], [1.0, math.nan], 0.0),
        ):
            correction = LinearBiasCorrection(line)
            correction.fit(torch.tensor(predictions), torch.tensor(targets))
            assert (correction.slope.item(), correction.intercept.item()) == (1, shift)
        same = LinearBiasCorrection("prediction").fit(torch.tensor([1.0, 9.0]), torch.full((2,), 5))
        assert (same.slope.item(), same.intercept.item()) == (1, 0)

    @given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), max_size=6))
    def test_always_finite(self, pairs: list[tuple[float, float]]) -> None:
        predictions, targets = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2).T
        for line in ("target", "prediction"):
            correction = LinearBiasCorrection(line).fit(predictions, targets)
            assert correction(predictions).isfinite().all()

    def test_missing_pairs_are_left_out(self) -> None:
        predictions, targets = self.pairs()
        whole = LinearBiasCorrection().fit(predictions, targets)
        gaps = torch.tensor([math.nan, 5.0, math.inf]), torch.tensor([5.0, math.nan, 5.0])
        more = LinearBiasCorrection().fit(
            torch.cat((predictions, gaps[0])), torch.cat((targets, gaps[1]))
        )
        assert torch.equal(whole.slope, more.slope)

    def test_it_is_saved(self) -> None:
        correction = LinearBiasCorrection().fit(*self.pairs())
        loaded = LinearBiasCorrection()
        loaded.load_state_dict(correction.state_dict())
        values = torch.tensor([[1.0], [240.0]])
        assert torch.equal(loaded(values), correction(values))
        assert repr(loaded).startswith("LinearBiasCorrection(line='target', slope=1.")

    def test_arguments(self) -> None:
        with pytest.raises(ValueError, match="line: expected one of 'target', 'prediction'"):
            LinearBiasCorrection("age")
        with pytest.raises(ValueError, match=r"targets: expected shape \(N,\) with N = 3"):
            LinearBiasCorrection().fit(torch.zeros(3), torch.zeros(3, 1))

    def test_device(self, device: torch.device) -> None:
        found = LinearBiasCorrection().to(device)(torch.zeros(2, 3, device=device))
        assert found.device.type == device.type
        assert found.shape == (2, 3)


def test_rows_that_no_temperature_makes_probable_are_left_out() -> None:
    bins, target = Bins(0, 100), torch.tensor([10.0, 40.0, 70.0])
    logits = torch.randn(3, 101) - (bins.centers - target[:, None]).abs() / 5
    known = TemperatureScaling().fit(logits, target, bins).temperature
    impossible = logits[:1].clone()
    impossible[0, 10] = -torch.inf
    nothing = torch.full((1, 101), torch.nan)
    more = torch.cat([logits, impossible, nothing]), torch.cat([target, target[:1], target[:1]])
    assert torch.equal(TemperatureScaling().fit(*more, bins).temperature, known)
    assert TemperatureScaling().fit(nothing, target[:1], bins).temperature == 1
    overflown = logits[:1].clone()
    overflown[0, 50] = torch.inf
    more = torch.cat([logits, overflown]), torch.cat([target, target[:1]])
    assert torch.equal(TemperatureScaling().fit(*more, bins).temperature, known)


def test_logits_that_say_nothing_have_temperature_1() -> None:
    bins, target = Bins(0, 100), torch.tensor([10.0, 40.0, 70.0])
    assert TemperatureScaling().fit(torch.full((3, 101), 2.5), target, bins).temperature == 1


def test_they_are_shown_without_values() -> None:
    assert repr(TemperatureScaling().to("meta")) == "TemperatureScaling(temperature=...)"
    shown = "LinearBiasCorrection(line='target', slope=..., intercept=...)"
    assert repr(LinearBiasCorrection().to("meta")) == shown


@pytest.mark.parametrize("line", ["target", "prediction"])
def test_a_line_that_does_not_rise_is_none(line: str) -> None:
    ages = torch.arange(10.0)
    correction = LinearBiasCorrection(line).fit(20 - ages, ages)
    assert correction.slope == 1
    torch.testing.assert_close(correction(20 - ages).mean(), ages.mean())


def test_calibrations_are_not_cast_and_not_taken_for_others() -> None:
    ages = torch.rand(30)
    fitted = LinearBiasCorrection().fit(0.7 * ages + 0.1 * torch.rand(30), ages)
    slope = fitted.slope.clone()
    assert torch.equal(fitted.half().slope, slope)
    with pytest.raises(ValueError, match="expected line='prediction', got line='target'"):
        LinearBiasCorrection("prediction").load_state_dict(fitted.state_dict())
    scaling = TemperatureScaling()
    scaling.load_state_dict(TemperatureScaling().bfloat16().state_dict())
    assert scaling.temperature.dtype == torch.float64


@pytest.mark.parametrize("make", [TemperatureScaling, LinearBiasCorrection])
def test_what_was_made_without_values_is_given_them(make: type) -> None:
    with torch.device("meta"):
        module = make()
    module.to_empty(device="cpu")
    module.reset_parameters()
    for name, value in make().named_buffers():
        torch.testing.assert_close(getattr(module, name), value, rtol=0, atol=0)
