from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldlcam.ldl import (
    Bins,
    gaussian_labels,
    laplace_labels,
    one_hot_labels,
    published_gaussian_labels,
    triangular_labels,
    two_hot_labels,
)
from ldlcam.ldl.log_labels import ENDS, log_labels
from tests.ldl import oracles

MONTHS = Bins(1, 240)
UNEVEN = Bins.from_centers([0, 1, 2, 4, 8, 12, 20], edges=[-1, 0.5, 1.5, 3, 6, 10, 14, 30])
CPU = torch.device("cpu")
SCALED = [end for end in ENDS if end != "error"]


def exact(bins: Bins) -> tuple[oracles.Array, oracles.Array]:
    return bins.centers_as(torch.float64, CPU).numpy(), bins.edges_as(torch.float64, CPU).numpy()


def means(labels: torch.Tensor, bins: Bins) -> torch.Tensor:
    return (labels.double() * bins.centers_as(torch.float64, CPU)).sum(-1)


@st.composite
def grids(draw: st.DrawFn, most: int = 60) -> Bins:
    """Bins of any first centre, number and step."""
    first = draw(st.integers(-100, 100))
    step = draw(st.sampled_from([0.1, 0.5, 1.0, 12.0]))
    return Bins(first, first + step * draw(st.integers(1, most)), step)


class TestGaussianAgainstScipy:
    values = (-3.0, 0.5, 1.0, 1.7, 5.0, 15.3, 120.0, 235.25, 239.5, 240.0, 244.0)

    @pytest.mark.parametrize("sigma", [0.4, 1.0, 15.0, 100.0])
    @pytest.mark.parametrize("integrate", [False, True])
    @pytest.mark.parametrize("ends", ["renormalize", "extend"])
    def test_values(self, sigma: float, integrate: bool, ends: str) -> None:
        values = torch.tensor(self.values, dtype=torch.float64)
        got = gaussian_labels(values, MONTHS, sigma, ends=ends, integrate=integrate)
        for value, row in zip(self.values, got.numpy(), strict=True):
            want = oracles.gaussian_label(value, *exact(MONTHS), sigma, ends, integrate)
            np.testing.assert_allclose(row, want, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("ends", SCALED)
    @pytest.mark.parametrize("value", [-1.0, 0.7, 3.0, 5.5, 14.0, 25.0])
    def test_uneven_bins(self, ends: str, value: float) -> None:
        values = torch.tensor([value], dtype=torch.float64)
        got = gaussian_labels(values, UNEVEN, 2.5, ends=ends)[0].numpy()
        inside = float(np.clip(value, 0.5, 16)) if ends == "preserve_mean" else value
        want = oracles.gaussian_label(inside, *exact(UNEVEN), 2.5, ends)
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-12)

    @pytest.mark.parametrize("sigma", [0.7, 3.0, 15.0])
    def test_preserve_mean_is_a_move_of_the_centre(self, sigma: float) -> None:
        values = [1.5, 2.2, 5.0, 15.0, 120.3, 230.0, 239.5]
        got = gaussian_labels(
            torch.tensor(values, dtype=torch.float64), MONTHS, sigma, ends="preserve_mean"
        )
        for value, row in zip(values, got.numpy(), strict=True):
            want = oracles.gaussian_label(value, *exact(MONTHS), sigma, "preserve_mean")
            np.testing.assert_allclose(row, want, atol=1e-10)

    def test_float32(self) -> None:
        values = torch.linspace(-20, 260, 281)
        for ends in SCALED:
            for integrate in (False, True):
                options = {"ends": ends, "integrate": integrate}
                got = gaussian_labels(values, MONTHS, 15.0, **options)
                want = gaussian_labels(values.double(), MONTHS, 15.0, **options)
                assert got.dtype == torch.float32
                torch.testing.assert_close(got, want.float(), atol=1e-6, rtol=1e-4)

    def test_one_sigma_per_value(self) -> None:
        sigma = torch.tensor([1.0, 15.0, 40.0])
        got = gaussian_labels(torch.tensor([7.0, 7.0, 7.0]), MONTHS, sigma)
        for i in range(3):
            want = gaussian_labels(torch.tensor([7.0]), MONTHS, float(sigma[i]))[0]
            assert torch.equal(got[i], want)


@pytest.mark.parametrize(
    ("value", "bias"),
    [(1, 11.65), (5, 9.26), (15, 4.50), (30, 0.89), (60, 0), (120, 0), (240.5, -11.97), (-3, 14.3)],
)
def test_renormalizing_biases_the_mean_by_known_amounts(value: float, bias: float) -> None:
    labels = gaussian_labels(torch.tensor([value]).double(), MONTHS, 15.0)
    assert means(labels, MONTHS).item() - value == pytest.approx(bias, abs=0.06)


class TestPreserveMean:
    @pytest.mark.parametrize("count", [2, 3, 240, 2000])
    @pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 15.0, 100.0])
    @pytest.mark.parametrize("integrate", [False, True])
    def test_to_the_stated_accuracy(self, count: int, sigma: float, integrate: bool) -> None:
        bins = Bins(1, count)
        for dtype, accuracy in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
            # half a bin inside of the ends is where it is hardest
            near = torch.tensor([1.5, 1.51, 1.9, count - 0.51, count - 0.5])
            values = torch.cat([near, torch.linspace(1.5, count - 0.5, 60)]).to(dtype)
            values = values.clamp(1.5, count - 0.5)
            labels = gaussian_labels(values, bins, sigma, ends="preserve_mean", integrate=integrate)
            assert (means(labels, bins) - values).abs().max() < accuracy

    @given(st.data(), grids(), st.floats(0.1, 100))
    def test_for_any_bins(self, data: st.DataObject, bins: Bins, sigma: float) -> None:
        half = bins.widest_step / 2
        value = data.draw(st.floats(bins.first + half, bins.last - half))
        values = torch.tensor([value], dtype=torch.float64)
        labels = gaussian_labels(values, bins, sigma * bins.widest_step, ends="preserve_mean")
        assert means(labels, bins).item() == pytest.approx(value, abs=1e-6 * bins.widest_step)

    def test_uneven_bins(self) -> None:
        values = torch.linspace(0.5, 16, 100, dtype=torch.float64)
        for sigma in (0.1, 1.0, 30.0):
            labels = gaussian_labels(values, UNEVEN, sigma, ends="preserve_mean")
            torch.testing.assert_close(means(labels, UNEVEN), values, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("integrate", [False, True])
    @pytest.mark.parametrize("sigma", [1e-30, 1e-4, 0.02])
    def test_labels_much_narrower_than_a_bin(
        self, sigma: float, integrate: bool, dtype: torch.dtype
    ) -> None:
        values = torch.tensor([24.0, 24.1, 24.3, 24.5, 24.9], dtype=dtype)
        labels = gaussian_labels(values, MONTHS, sigma, ends="preserve_mean", integrate=integrate)
        torch.testing.assert_close(means(labels, MONTHS), values.double(), rtol=0, atol=2e-3)
        assert (labels[1:, 23:25].sum(-1) > 0.999).all()

    def test_values_outside_count_as_half_a_bin_inside(self) -> None:
        labels = gaussian_labels(
            torch.tensor([-1e9, 1.0, 1.5, 239.5, 240.0, 1e9]), MONTHS, 15.0, ends="preserve_mean"
        )
        want = torch.tensor([1.5, 1.5, 1.5, 239.5, 239.5, 239.5]).double()
        torch.testing.assert_close(means(labels, MONTHS), want, atol=1e-3, rtol=0)

    def test_the_label_gets_narrower_towards_the_end(self) -> None:
        labels = gaussian_labels(
            torch.tensor([5.0, 15.0, 120.0]).double(), MONTHS, 15.0, ends="preserve_mean"
        )
        second = (labels * MONTHS.centers.double().square()).sum(-1)
        deviations = (second - means(labels, MONTHS).square()).sqrt()
        torch.testing.assert_close(
            deviations, torch.tensor([4.2, 10.2, 15.0]).double(), atol=0.05, rtol=0
        )


class TestEnds:
    def test_extend_gives_the_end_bins_what_is_beyond(self) -> None:
        for value in (-40.0, 1.0, 30.0):
            label = gaussian_labels(
                torch.tensor([value]).double(), MONTHS, 15.0, ends="extend", integrate=True
            )[0]
            want = oracles.stats.norm.cdf((1.5 - value) / 15)
            assert label[0].item() == pytest.approx(want, abs=1e-12)

    def test_error_refuses_values_beyond_the_edges(self) -> None:
        inside = torch.tensor([0.5, 100.0, 240.5, torch.nan])
        assert torch.equal(
            gaussian_labels(inside, MONTHS, 15.0, ends="error"),
            gaussian_labels(inside, MONTHS, 15.0),
        )
        with pytest.raises(ValueError) as caught:
            gaussian_labels(torch.tensor([100.0, 241.0, -3.0]), MONTHS, 15.0, ends="error")
        assert str(caught.value) == (
            "values: expected all from 0.5 to 240.5 with ends='error', got 2 outside, the first 241"
        )

    def test_mirrored_values_have_mirrored_labels(self) -> None:
        values = torch.tensor([-500.0, -3.0, 1.0, 8.0, 33.3]).double()
        for ends in SCALED:
            for integrate in (False, True):
                labels = gaussian_labels(values, MONTHS, 9.0, ends=ends, integrate=integrate)
                mirrored = gaussian_labels(
                    241 - values, MONTHS, 9.0, ends=ends, integrate=integrate
                )
                torch.testing.assert_close(labels, mirrored.flip(-1))


class TestHostileInputs:
    @pytest.mark.parametrize("integrate", [False, True])
    @pytest.mark.parametrize("ends", SCALED)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_always_a_distribution(self, integrate: bool, ends: str, dtype: torch.dtype) -> None:
        far = torch.tensor([0.0, 1.0, 240.5, -3.0, 1e3, -1e5, 1e18, -1e38], dtype=dtype)
        for count in (2, 3, 2000):
            bins = Bins(1, count)
            for sigma in (1e-12, 1e-3, 0.1, 1.0, 15.0, 100.0, 1e6, 1e30):
                labels = gaussian_labels(far, bins, sigma, ends=ends, integrate=integrate)
                assert labels.dtype == dtype
                assert (labels >= 0).all()
                torch.testing.assert_close(labels.sum(-1), torch.ones_like(far))
                logs, _ = log_labels(far, bins, sigma, ends=ends, integrate=integrate)
                assert logs.isfinite().all()

    @given(
        st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=5),
        st.floats(0.01, 1e3),
        grids(),
        st.sampled_from(SCALED),
        st.booleans(),
    )
    def test_any_value(
        self, values: list[float], sigma: float, bins: Bins, ends: str, integrate: bool
    ) -> None:
        given = torch.tensor(values, dtype=torch.float32)
        labels = gaussian_labels(given, bins, sigma, ends=ends, integrate=integrate)
        torch.testing.assert_close(labels.sum(-1), given.isfinite().float())
        assert labels.shape == (len(values), len(bins))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_no_denormal_numbers(self, dtype: torch.dtype) -> None:
        for sigma in (0.1, 1.0, 15.0):
            labels = gaussian_labels(torch.tensor([7.0, 120.0], dtype=dtype), MONTHS, sigma)
            assert labels.min() >= torch.finfo(dtype).tiny

    def test_far_values_are_at_their_end(self) -> None:
        labels = gaussian_labels(torch.tensor([-1e4, 1e4]), MONTHS, 15.0)
        assert labels.argmax(-1).tolist() == [0, 239]
        assert (labels.amax(-1) > 0.9).all()

    def test_missing_values_are_rows_of_zeros(self) -> None:
        values = torch.tensor([torch.nan, 7.0, torch.inf, -torch.inf])
        labels = gaussian_labels(values, MONTHS, 15.0)
        assert labels.sum(-1).tolist() == pytest.approx([0, 1, 0, 0])
        assert (gaussian_labels(values[:2], MONTHS, torch.tensor([1.0, torch.nan])) == 0).all()

    def test_sigmas_that_are_none(self) -> None:
        sigma = torch.tensor([0.0, -1.0, torch.inf])
        labels = gaussian_labels(torch.tensor([7.2, 7.2, 7.2]), MONTHS, sigma)
        assert labels[:2, 6].tolist() == [1, 1]
        torch.testing.assert_close(labels[2], torch.full((240,), 1 / 240))

    def test_no_values(self) -> None:
        assert gaussian_labels(torch.zeros(0), MONTHS, 15.0).shape == (0, 240)
        assert triangular_labels(torch.zeros(0), MONTHS, 15.0).shape == (0, 240)

    @pytest.mark.parametrize("ends", SCALED)
    def test_gradients_by_differences(self, ends: str) -> None:
        def moments(value: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            labels = gaussian_labels(value, MONTHS, sigma, ends=ends)
            centers = MONTHS.centers.double()
            mean = (labels * centers).sum(-1)
            return torch.stack([mean, (labels * (centers - mean[:, None]) ** 2).sum(-1)])

        given = [
            torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
            for numbers in ([5.0, 60.0, 232.0], [15.0, 3.0, 8.0])
        ]
        assert torch.autograd.gradcheck(moments, given, atol=1e-4)

    def test_gradients_are_finite(self) -> None:
        values = torch.tensor([-1e6, 1.0, 100.0, torch.nan, 1e6], requires_grad=True)
        for ends in SCALED:
            for integrate in (False, True):
                labels = gaussian_labels(values, MONTHS, 2.0, ends=ends, integrate=integrate)
                (labels * MONTHS.centers).sum().backward()
                assert values.grad is not None
                assert values.grad.isfinite().all()


@pytest.mark.parametrize("ends", SCALED)
@pytest.mark.parametrize("sigma", [1e-4, 1e-3, 0.05, 1.0])
def test_gradients_of_narrow_integrals(sigma: float, ends: str) -> None:
    """In float32 as in float64, where all but one bin are thousands of sigmas away."""
    gradients = []
    for dtype in (torch.float32, torch.float64):
        values = torch.tensor([-5.0, 1.25, 3.5, 120.4375, 250.0], dtype=dtype, requires_grad=True)
        labels = gaussian_labels(values, MONTHS, sigma, ends=ends, integrate=True)
        (gradient,) = torch.autograd.grad((labels * MONTHS.centers).sum(), values)
        gradients += [gradient.double()]
    assert gradients[0].isfinite().all()
    if ends != "preserve_mean" or sigma > 0.01:  # a tilt that steep is not exact in float32
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def test_gradients_by_differences_of_integrals() -> None:
    values = torch.tensor([0.2, 3.3, 5.1], dtype=torch.float64, requires_grad=True)
    for ends in SCALED:
        assert torch.autograd.gradcheck(
            lambda values, ends=ends: gaussian_labels(
                values, Bins(1, 6), 0.7, ends=ends, integrate=True
            ),
            values,
        )


class TestTriangular:
    @pytest.mark.parametrize("width", [0.5 * (1 + 1e-8), 0.500001, 0.51])
    def test_no_label_is_empty_midway_between_bins(self, width: float) -> None:
        labels = triangular_labels(torch.tensor([1.5, 2.5, 1.0, 2.2]), Bins(1, 5), width)
        torch.testing.assert_close(labels.sum(-1), torch.ones(4))
        assert labels[0].tolist() == [0.5, 0.5, 0, 0, 0]
        assert labels[3].argmax() == 1

    def test_against_the_formula(self) -> None:
        values = [1.0, 5.25, 100.0, 239.0]
        for bins in (MONTHS, Bins(0, 300, 2.5), Bins.from_centers([0, 1, 5, 30, 90])):
            raw = triangular_labels(torch.tensor(values).double(), bins, 50.0, normalize=False)
            scaled = triangular_labels(torch.tensor(values).double(), bins, 50.0)
            for i, value in enumerate(values):
                inside = min(value, bins.last)
                want = oracles.triangular_label(inside, exact(bins)[0], 50.0)
                np.testing.assert_allclose(raw[i].numpy(), want, atol=1e-12)
                np.testing.assert_allclose(scaled[i].numpy(), want / want.sum(), atol=1e-12)

    def test_sum_of_the_raw_label(self) -> None:
        raw = triangular_labels(torch.tensor([120.0]), MONTHS, 50.0, normalize=False)
        assert raw.sum().item() == pytest.approx(50)
        assert raw.max() == 1

    def test_a_width_of_one_step_interpolates(self) -> None:
        label = triangular_labels(torch.tensor([3.25]).double(), Bins(1, 5), 1.0)
        torch.testing.assert_close(label[0], torch.tensor([0, 0, 0.75, 0.25, 0]).double())

    @given(st.floats(allow_nan=True, allow_infinity=True, width=32), st.floats(0.51, 1e6), grids())
    def test_always_a_distribution(self, value: float, width: float, bins: Bins) -> None:
        values = torch.tensor([value])
        label = triangular_labels(values, bins, width * bins.widest_step)
        assert (label >= 0).all()
        torch.testing.assert_close(label.sum(-1), values.isfinite().float())

    def test_values_outside_count_as_the_end_centres(self) -> None:
        labels = triangular_labels(torch.tensor([-1e30, 1.0, 240.0, 300.0]), MONTHS, 5.0)
        assert torch.equal(labels[0], labels[1])
        assert torch.equal(labels[2], labels[3])

    @pytest.mark.parametrize("width", [0.5, 0, -1, float("nan"), float("inf")])
    def test_refuses_widths(self, width: float) -> None:
        with pytest.raises(ValueError, match=r"width: expected a finite number above 0\.5"):
            triangular_labels(torch.zeros(2), MONTHS, width)

    @pytest.mark.parametrize("width", ["2", torch.ones(2), None])
    def test_what_is_no_width_is_named(self, width: object) -> None:
        with pytest.raises(TypeError, match=r"width: expected a finite number above 0\.5"):
            triangular_labels(torch.zeros(2), MONTHS, width)  # type: ignore[arg-type]


class TestLaplace:
    values = (-3.0, 0.5, 1.0, 5.0, 15.3, 120.0, 239.5, 244.0)

    @pytest.mark.parametrize("scale", [0.4, 1.0, 10.0])
    @pytest.mark.parametrize("integrate", [False, True])
    @pytest.mark.parametrize("ends", ["renormalize", "extend"])
    @pytest.mark.parametrize("bins", [MONTHS, UNEVEN], ids=repr)
    def test_against_scipy(self, scale: float, integrate: bool, ends: str, bins: Bins) -> None:
        values = torch.tensor(self.values, dtype=torch.float64).clamp(max=bins.last + 4)
        got = laplace_labels(values, bins, scale, ends=ends, integrate=integrate)
        for value, row in zip(values.tolist(), got.numpy(), strict=True):
            want = oracles.laplace_label(value, *exact(bins), scale, ends, integrate)
            np.testing.assert_allclose(row, want, rtol=1e-9, atol=1e-12)

    @given(st.floats(allow_nan=True, allow_infinity=True, width=32), st.floats(0.1, 100), grids())
    def test_always_a_distribution(self, value: float, scale: float, bins: Bins) -> None:
        values = torch.tensor([value])
        for ends in SCALED:
            for integrate in (False, True):
                label = laplace_labels(values, bins, scale, ends=ends, integrate=integrate)
                assert (label >= 0).all()
                torch.testing.assert_close(label.sum(-1), values.isfinite().float())

    @pytest.mark.parametrize("integrate", [False, True])
    def test_preserving_the_mean(self, integrate: bool) -> None:
        values = torch.linspace(1.5, 239.5, 120, dtype=torch.float64)
        for scale in (0.5, 3.0, 20.0):
            got = laplace_labels(values, MONTHS, scale, ends="preserve_mean", integrate=integrate)
            torch.testing.assert_close(means(got, MONTHS), values, atol=1e-6, rtol=0)

    def test_one_scale_per_value(self) -> None:
        got = laplace_labels(torch.tensor([7.0, 7.0]), MONTHS, torch.tensor([2.0, 5.0]))
        for row, scale in zip(got, (2.0, 5.0), strict=True):
            assert torch.equal(row, laplace_labels(torch.tensor([7.0]), MONTHS, scale)[0])

    def test_gradients_are_finite(self) -> None:
        values = torch.tensor([-1e6, 1.0, 100.0, torch.nan, 1e6], requires_grad=True)
        for ends in SCALED:
            for integrate in (False, True):
                labels = laplace_labels(values, MONTHS, 2.0, ends=ends, integrate=integrate)
                (labels * MONTHS.centers).sum().backward()
                assert values.grad is not None
                assert values.grad.isfinite().all()

    def test_arguments(self) -> None:
        with pytest.raises(ValueError, match="scale: expected a finite number above 0"):
            laplace_labels(torch.zeros(2), MONTHS, 0.0)
        with pytest.raises(ValueError, match=r"scale: expected shape \(N,\) with N = 2"):
            laplace_labels(torch.zeros(2), MONTHS, torch.ones(3))


class TestHot:
    @given(st.floats(allow_nan=True, allow_infinity=True, width=32), grids())
    def test_two_hot_keeps_the_mean(self, value: float, bins: Bins) -> None:
        values = torch.tensor([value], dtype=torch.float64)
        labels = two_hot_labels(values, bins)
        assert (labels > 0).sum() <= 2
        if values.isfinite().all():
            assert labels.sum().item() == pytest.approx(1)
            want = float(np.clip(value, bins.first, bins.last))
            assert means(labels, bins).item() == pytest.approx(want, abs=1e-9 * abs(want) + 1e-9)
        else:
            assert (labels == 0).all()

    def test_two_hot_against_numpy(self) -> None:
        values = np.linspace(-2, 22, 97)
        got = two_hot_labels(torch.from_numpy(values), UNEVEN).numpy()
        for k in range(len(UNEVEN)):
            want = np.interp(values, exact(UNEVEN)[0], np.eye(len(UNEVEN))[k])
            np.testing.assert_allclose(got[:, k], want, atol=1e-12)

    def test_one_hot_is_the_bin_of_the_value(self) -> None:
        values = torch.tensor([-5.0, 0.4, 3.0, 13.9, 14.1, 99.0])
        labels = one_hot_labels(values, UNEVEN)
        assert labels.argmax(-1).tolist() == UNEVEN.index(values).tolist()
        assert labels.sum(-1).tolist() == [1] * 6

    @pytest.mark.parametrize("build", [one_hot_labels, two_hot_labels])
    def test_missing_values_are_rows_of_zeros(self, build: Callable[..., torch.Tensor]) -> None:
        labels = build(torch.tensor([torch.nan, 7.0, torch.inf, -torch.inf]), MONTHS)
        assert labels.sum(-1).tolist() == [0, 1, 0, 0]
        assert build(torch.zeros(0), MONTHS).shape == (0, 240)

    def test_two_hot_has_a_gradient(self) -> None:
        values = torch.tensor([0.3, 3.3, 15.0], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda values: two_hot_labels(values, UNEVEN), values)


class TestPublishedScales:
    values = (1.0, 5.0, 15.0, 120.0, 240.0)

    @pytest.mark.parametrize("sigma", [2.0, 15.0])
    def test_against_the_formulas(self, sigma: float) -> None:
        values = torch.tensor(self.values, dtype=torch.float64)
        paper = published_gaussian_labels(values, MONTHS, sigma).numpy()
        code = published_gaussian_labels(values, MONTHS, sigma, scale="code").numpy()
        months = np.arange(1, 241)
        for i, value in enumerate(self.values):
            want = np.exp(-((months - value) ** 2) / (2 * sigma**2))
            np.testing.assert_allclose(code[i], want, rtol=1e-10, atol=1e-30)
            np.testing.assert_allclose(
                paper[i], want / np.sqrt(2 * np.pi * sigma), rtol=1e-10, atol=1e-30
            )

    def test_what_rows_sum_to(self) -> None:
        ages = torch.tensor([1.0, 5.0, 120.0, torch.nan])
        paper = published_gaussian_labels(ages, MONTHS, 15.0).sum(-1)
        code = published_gaussian_labels(ages, MONTHS, 15.0, scale="code").sum(-1)
        torch.testing.assert_close(paper, torch.tensor([1.99, 2.39, 3.87, 0]), atol=0.01, rtol=0)
        torch.testing.assert_close(code[2:], torch.tensor([37.6, 0]), atol=0.01, rtol=0)

    def test_far_values_and_narrow_labels(self) -> None:
        values = torch.tensor([3e20, -3e20, 120.0])
        assert published_gaussian_labels(values, MONTHS, 15.0).sum(-1)[:2].tolist() == [0, 0]
        narrow = published_gaussian_labels(values, MONTHS, 1e-30, scale="code")
        assert narrow.isfinite().all()

    def test_refuses_scales(self) -> None:
        with pytest.raises(ValueError, match="scale: expected one of 'paper', 'code'"):
            published_gaussian_labels(torch.zeros(2), MONTHS, 15.0, scale="Eq. 11")


class TestArguments:
    def test_shapes_are_never_broadcast(self) -> None:
        for build in (
            lambda values: gaussian_labels(values, MONTHS, 15.0),
            lambda values: triangular_labels(values, MONTHS, 15.0),
            lambda values: laplace_labels(values, MONTHS, 15.0),
            lambda values: published_gaussian_labels(values, MONTHS, 15.0),
            lambda values: one_hot_labels(values, MONTHS),
            lambda values: two_hot_labels(values, MONTHS),
        ):
            with pytest.raises(ValueError, match=r"values: expected shape \(N,\), got \(8, 1\)"):
                build(torch.zeros(8, 1))
        for sigma in (torch.ones(3), torch.ones(1), torch.ones(2, 1), torch.tensor(1.0)):
            with pytest.raises(ValueError, match=r"sigma: expected shape \(N,\) with N = 2"):
                gaussian_labels(torch.zeros(2), MONTHS, sigma)

    def test_bins(self) -> None:
        for build in (
            lambda bins: gaussian_labels(torch.zeros(2), bins, 15.0),
            lambda bins: triangular_labels(torch.zeros(2), bins, 15.0),
            lambda bins: laplace_labels(torch.zeros(2), bins, 15.0),
            lambda bins: published_gaussian_labels(torch.zeros(2), bins, 15.0),
            lambda bins: one_hot_labels(torch.zeros(2), bins),
            lambda bins: two_hot_labels(torch.zeros(2), bins),
        ):
            with pytest.raises(TypeError, match="bins: expected a Bins, got Tensor"):
                build(MONTHS.centers)

    def test_options(self) -> None:
        with pytest.raises(ValueError, match="ends: expected one of 'renormalize', 'preserve"):
            gaussian_labels(torch.zeros(2), MONTHS, 15.0, ends="clamp")
        with pytest.raises(ValueError, match="sigma: expected a finite number above 0"):
            gaussian_labels(torch.zeros(2), MONTHS, 0.0)
        with pytest.raises(TypeError, match="values: expected a tensor, got list"):
            gaussian_labels([1.0], MONTHS, 15.0)
        with pytest.raises(TypeError, match="sigma: expected a finite number above 0, got tensor"):
            published_gaussian_labels(torch.zeros(2), MONTHS, torch.ones(2))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("given", "dtype"),
        [
            (torch.int64, torch.float32),
            (torch.float16, torch.float32),
            (torch.bfloat16, torch.float32),
            (torch.float64, torch.float64),
        ],
    )
    def test_dtypes(self, given: torch.dtype, dtype: torch.dtype) -> None:
        values = torch.tensor([5, 120]).to(given)
        labels = gaussian_labels(values, MONTHS, 15.0)
        assert labels.dtype == triangular_labels(values, MONTHS, 5.0).dtype == dtype
        want = gaussian_labels(torch.tensor([5.0, 120.0]).to(dtype), MONTHS, 15.0)
        assert torch.equal(labels, want)

    def test_device(self, device: torch.device) -> None:
        bins = Bins(1, 240).to(device)
        values = torch.linspace(0, 250, 7, device=device)
        sigma = torch.full_like(values, 15)
        results = [
            triangular_labels(values, bins, 50.0),
            published_gaussian_labels(values, bins, 15.0),
            one_hot_labels(values, bins),
            two_hot_labels(values, bins),
        ]
        for ends in SCALED:
            for integrate in (False, True):
                results += [
                    build(values, bins, sigma, ends=ends, integrate=integrate)
                    for build in (gaussian_labels, laplace_labels)
                ]
        for result in results:
            assert result.shape == (7, 240)
            assert result.device.type == device.type
            assert result.dtype == torch.float32


@pytest.mark.parametrize("integrate", [False, True])
@pytest.mark.parametrize("sigma", [2.3, 20.0, 300.0])
def test_means_are_kept_in_bins_of_very_different_widths(sigma: float, integrate: bool) -> None:
    bins = Bins.from_centers([0, 0.01, 1, 100, 101, 1000])
    values = torch.linspace(0.1, 550, 97, dtype=torch.float64)
    labels = gaussian_labels(values, bins, sigma, ends="preserve_mean", integrate=integrate)
    means = (labels * bins.centers_as(torch.float64, values.device)).sum(-1)
    torch.testing.assert_close(means, values, atol=1e-3, rtol=0)
