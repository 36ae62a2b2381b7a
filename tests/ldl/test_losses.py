import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from ldlcam.ldl import (
    Bins,
    ExpectationLDLLoss,
    ExpectationLoss,
    LabelDivergenceLoss,
    expectation,
    expectation_ldl_loss,
    gaussian_labels,
    published_gaussian_labels,
)
from ldlcam.ldl.log_labels import ENDS
from ldlcam.ldl.loss_parts import DISTANCES, REDUCTIONS
from tests.ldl import oracles

MONTHS = Bins(1, 240, unit="months")
CPU = torch.device("cpu")
SCALED = [end for end in ENDS if end != "error"]


def reference(
    logits: Tensor, target: Tensor, bins: Bins, sigma: float, distance: str, ends: str
) -> tuple[oracles.Array, oracles.Array]:
    """Distances and divergences of each sample."""
    centers = bins.centers_as(torch.float64, CPU).numpy()
    edges = bins.edges_as(torch.float64, CPU).numpy()
    distances, divergences = [], []
    for row, value in zip(logits.double().numpy(), target.double().numpy(), strict=True):
        label = oracles.gaussian_label(float(value), centers, edges, sigma, ends)
        error = abs(oracles.special.softmax(row) @ centers - value)
        step = (centers[-1] - centers[0]) / (len(centers) - 1)
        distances += [
            {
                "l1": error,
                "l2": error**2,
                "smooth_l1": error**2 / 2 / step if error < step else error - step / 2,
            }[distance]
        ]
        divergences += [oracles.divergence(label, row)]
    return np.array(distances), np.array(divergences)


class TestAgainstScipy:
    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("ends", SCALED)
    @pytest.mark.parametrize("bins", [MONTHS, Bins.from_centers([0, 1, 2, 4, 8, 16])], ids=repr)
    def test_terms(self, distance: str, ends: str, bins: Bins) -> None:
        logits = torch.randn(9, len(bins), dtype=torch.float64) * 3
        target = torch.linspace(bins.first + 0.6, bins.last - 4.1, 9, dtype=torch.float64)
        criterion = ExpectationLDLLoss(
            bins, 1.5, 0.7, distance=distance, ends=ends, reduction="none"
        )
        got = criterion.terms(logits, target)
        distances, divergences = reference(logits, target, bins, 1.5, distance, ends)
        np.testing.assert_allclose(got.distance.numpy(), distances, atol=1e-10)
        np.testing.assert_allclose(got.divergence.numpy(), divergences, atol=1e-10)
        np.testing.assert_allclose(got.total.numpy(), distances + 0.7 * divergences, atol=1e-10)

    @given(
        st.integers(2, 50),
        st.floats(0.1, 100),
        st.floats(-60, 60),
        st.floats(0, 100),
        st.integers(0, 10**6),
    )
    def test_any_sample(
        self, count: int, sigma: float, value: float, scale: float, seed: int
    ) -> None:
        bins = Bins(1, count)
        # further than the far limit the label is not that of the value itself
        value = min(max(value, 1 - 30 * sigma), count + 30 * sigma)
        generator = torch.Generator().manual_seed(seed)
        logits = scale * torch.randn(1, count, dtype=torch.float64, generator=generator)
        target = torch.tensor([value], dtype=torch.float64)
        got = ExpectationLDLLoss(bins, sigma).terms(logits, target)
        distances, divergences = reference(logits, target, bins, sigma, "l1", "renormalize")
        assert got.distance.item() == pytest.approx(distances[0], abs=1e-9)
        assert got.divergence.item() == pytest.approx(divergences[0], rel=1e-6, abs=1e-9)

    def test_float32(self) -> None:
        logits = torch.randn(64, 240) * 5
        target = torch.linspace(-5, 250, 64)
        loss = expectation_ldl_loss(logits, target, MONTHS, 15.0, reduction="none")
        want = expectation_ldl_loss(
            logits.double(), target.double(), MONTHS, 15.0, reduction="none"
        )
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, want.float(), rtol=1e-5, atol=1e-3)

    def test_a_perfect_prediction_has_no_divergence(self) -> None:
        target = torch.tensor([110.0, 120.0]).double()
        logits = -((MONTHS.centers - target[:, None]) / 15).square() / 2
        terms = ExpectationLDLLoss(MONTHS, 15.0).terms(logits, target)
        assert terms.total.item() == pytest.approx(0, abs=1e-3)
        assert terms.divergence.item() == pytest.approx(0, abs=1e-9)


class TestUnits:
    @pytest.mark.parametrize(("distance", "power"), [("l1", 1), ("smooth_l1", 1), ("l2", 2)])
    def test_months_and_years_have_the_same_loss(self, distance: str, power: int) -> None:
        """By default, but for the unit itself: 12 months are a year."""
        years = Bins(1 / 12, 20, 1 / 12, unit="years")
        logits = torch.randn(16, 240, dtype=torch.float64)
        target = torch.linspace(1, 239.4, 16, dtype=torch.float64)
        in_months = expectation_ldl_loss(logits, target, MONTHS, 15.0, distance=distance)
        in_years = expectation_ldl_loss(logits, target / 12, years, 15 / 12, distance=distance)
        torch.testing.assert_close(in_months, in_years * 12**power)

    def test_a_given_weight_is_not_scaled(self) -> None:
        logits, target = torch.zeros(1, 240), torch.tensor([60.0])
        terms = ExpectationLDLLoss(MONTHS, 15.0, 0.5).terms(logits, target)
        torch.testing.assert_close(terms.total, terms.distance + 0.5 * terms.divergence)

    @pytest.mark.parametrize(("distance", "weight"), [("l1", 15), ("smooth_l1", 15), ("l2", 225)])
    def test_the_default_weight_is_sigma(self, distance: str, weight: float) -> None:
        logits, target = torch.randn(4, 240), torch.full((4,), 60.0)
        torch.testing.assert_close(
            expectation_ldl_loss(logits, target, MONTHS, 15.0, distance=distance),
            expectation_ldl_loss(logits, target, MONTHS, 15.0, weight, distance=distance),
        )

    def test_without_weight_it_is_the_distance_alone(self) -> None:
        logits, target = torch.randn(4, 240), torch.full((4,), 60.0)
        terms = ExpectationLDLLoss(MONTHS, 15.0, 0.0).terms(logits, target)
        assert torch.equal(terms.total, terms.distance)

    def test_without_weight_no_divergence_is_too_large(self) -> None:
        logits, target = torch.randn(4, 240), torch.full((4,), 60.0)
        logits[:, 59] = -torch.inf
        terms = ExpectationLDLLoss(MONTHS, 15.0, 0.0).terms(logits, target)
        assert terms.divergence == torch.inf
        assert torch.equal(terms.total, terms.distance)

    def test_the_terms_pull_alike_at_an_error_of_sigma(self) -> None:
        shift = torch.tensor(15.0, dtype=torch.float64, requires_grad=True)
        logits = -((MONTHS.centers - 120 - shift) / 15).square() / 2
        target = torch.tensor([120.0], dtype=torch.float64)
        terms = ExpectationLoss(MONTHS), LabelDivergenceLoss(MONTHS, 15.0)
        losses = [term(logits[None], target) for term in terms]
        pulls = [
            torch.autograd.grad(loss, shift, retain_graph=True)[0]
            for loss in (losses[0], 15 * losses[1])
        ]
        torch.testing.assert_close(pulls[0], pulls[1], rtol=1e-3, atol=0)


class TestPublished:
    logits = torch.randn(4, 240, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([2.0, 15.0, 120.0, 238.5], dtype=torch.float64)

    @pytest.mark.parametrize("scale", ["paper", "code"])
    def test_divergence_of_labels_that_do_not_sum_to_one(self, scale: str) -> None:
        labels = published_gaussian_labels(self.target, MONTHS, 15.0, scale=scale)
        log_probs = self.logits.log_softmax(-1)
        want = (torch.xlogy(labels, labels) - labels * log_probs).sum(-1)
        criterion = ExpectationLDLLoss.paper(MONTHS, weight=0.3, label_scale=scale)
        terms = criterion.terms(self.logits, self.target)
        torch.testing.assert_close(terms.divergence, want.mean())
        torch.testing.assert_close(terms.total, terms.distance + 0.3 * want.mean())

    def test_dldl_v2(self) -> None:
        """Its divergence is a mean over bins and samples."""
        bins = Bins(0, 100, unit="years")
        logits, target = self.logits[:, :101], torch.tensor([3.0, 30.0, 55.0, 97.0]).double()
        labels = gaussian_labels(target, bins, 2.0)
        divergence = functional.kl_div(logits.log_softmax(-1), labels, reduction="none").mean()
        distance = (expectation(logits, bins) - target).abs().mean()
        got = ExpectationLDLLoss.dldl_v2(bins, weight=1.5)(logits, target)
        torch.testing.assert_close(got, distance + 1.5 * divergence)

    def test_far_targets_have_no_divergence_but_a_distance(self) -> None:
        logits = torch.zeros(1, 240, requires_grad=True)
        loss = ExpectationLDLLoss.paper(MONTHS)(logits, torch.tensor([1e5]))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad[0, -1] < -0.4

    @pytest.mark.parametrize("scale", ["paper", "code"])
    def test_targets_as_far_as_floats_go(self, scale: str) -> None:
        logits = torch.zeros(2, 240, requires_grad=True)
        criterion = ExpectationLDLLoss(MONTHS, 15.0, label_scale=scale, reduction="none")
        terms = criterion.terms(logits, torch.tensor([120.0, 3e20]))
        assert terms.divergence[0] > 0
        assert terms.divergence[1] == 0
        assert terms.total[1] == terms.distance[1]
        (gradient,) = torch.autograd.grad(terms.total.sum(), logits)
        assert gradient.isfinite().all()

    def test_the_scales_need_labels_that_lose_their_ends(self) -> None:
        for options in ({"ends": "extend"}, {"reverse": True}):
            with pytest.raises(ValueError, match="label_scale: expected 'probabilities' with"):
                ExpectationLDLLoss(MONTHS, 15.0, label_scale="paper", **options)
        with pytest.raises(ValueError, match="label_scale: expected one of 'probabilities', 'pa"):
            ExpectationLDLLoss(MONTHS, 15.0, label_scale="sum")


class TestReverse:
    def test_against_scipy(self) -> None:
        logits = torch.randn(5, 240, dtype=torch.float64)
        target = torch.linspace(2, 239, 5, dtype=torch.float64)
        labels = gaussian_labels(target, MONTHS, 15.0)
        want = oracles.special.rel_entr(logits.softmax(-1).numpy(), labels.numpy()).sum(1)
        got = ExpectationLDLLoss(MONTHS, 15.0, reverse=True, reduction="none").terms(logits, target)
        np.testing.assert_allclose(got.divergence.numpy(), want, atol=1e-10)


class TestReduction:
    logits = torch.linspace(-3, 3, 4 * 240).reshape(4, 240)
    target = torch.tensor([5.0, torch.nan, 120.0, 200.0])

    def each(self, weight: Tensor | None = None) -> Tensor:
        return expectation_ldl_loss(
            self.logits, self.target, MONTHS, 15.0, reduction="none", sample_weight=weight
        )

    def test_missing_targets_have_no_loss(self) -> None:
        each = self.each()
        present = self.target.isfinite()
        assert each[1] == 0
        assert (each[present] > 0).all()
        mean = expectation_ldl_loss(self.logits, self.target, MONTHS, 15.0)
        torch.testing.assert_close(mean, each[present].mean())
        whole = expectation_ldl_loss(self.logits[present], self.target[present], MONTHS, 15.0)
        torch.testing.assert_close(mean, whole)

    def test_sum(self) -> None:
        total = expectation_ldl_loss(self.logits, self.target, MONTHS, 15.0, reduction="sum")
        torch.testing.assert_close(total, self.each().sum())

    def test_sample_weights(self) -> None:
        weight = torch.tensor([2.0, torch.nan, 0.0, 0.5])
        each = self.each(weight)
        torch.testing.assert_close(each, self.each() * torch.tensor([2.0, 0, 0, 0.5]))
        mean = expectation_ldl_loss(self.logits, self.target, MONTHS, 15.0, sample_weight=weight)
        torch.testing.assert_close(mean, each.sum() / 2.5)

    def test_whole_number_weights_repeat_samples(self) -> None:
        count = torch.tensor([3, 1, 0, 2])
        repeated = expectation_ldl_loss(
            self.logits.repeat_interleave(count, 0),
            self.target.repeat_interleave(count),
            MONTHS,
            15.0,
        )
        weighted = expectation_ldl_loss(self.logits, self.target, MONTHS, 15.0, sample_weight=count)
        torch.testing.assert_close(weighted, repeated)

    @pytest.mark.parametrize("reduction", REDUCTIONS)
    def test_nothing_present(self, reduction: str) -> None:
        logits = self.logits.clone().requires_grad_()
        loss = expectation_ldl_loss(
            logits, torch.full((4,), torch.nan), MONTHS, 15.0, reduction=reduction
        )
        assert (loss == 0).all()
        loss.sum().backward()
        assert logits.grad is not None
        assert (logits.grad == 0).all()

    def test_an_empty_batch(self) -> None:
        assert expectation_ldl_loss(torch.zeros(0, 240), torch.zeros(0), MONTHS, 15.0) == 0

    def test_all_terms_are_reduced_alike(self) -> None:
        criterion = ExpectationLDLLoss(MONTHS, 15.0, 3.0)
        terms = criterion.terms(self.logits, self.target)
        torch.testing.assert_close(terms.total, terms.distance + 3 * terms.divergence)
        assert torch.equal(terms.total, criterion(self.logits, self.target))


class TestGradients:
    bins = Bins(1, 6)
    target = torch.tensor([0.2, 3.3, 5.9, torch.nan], dtype=torch.float64)

    @pytest.mark.parametrize("distance", DISTANCES)
    @pytest.mark.parametrize("ends", SCALED)
    def test_first_and_second_derivatives(self, distance: str, ends: str) -> None:
        logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)

        def loss(logits: Tensor) -> Tensor:
            return expectation_ldl_loss(
                logits, self.target, self.bins, 1.3, distance=distance, ends=ends
            )

        assert gradcheck(loss, logits)
        assert gradgradcheck(loss, logits)

    def test_missing_targets_have_no_gradient(self) -> None:
        logits = torch.randn(4, 6, requires_grad=True)
        expectation_ldl_loss(logits, self.target, self.bins, 1.3).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert (logits.grad[3] == 0).all()
        assert (logits.grad[:3] != 0).any(-1).all()


class TestOptimum:
    """What the best logits of one sample predict: the label's bias pulls at the expectation."""

    def best(self, value: float, weight: float, ends: str) -> float:
        target = torch.tensor([value], dtype=torch.float64)
        logits = torch.zeros(1, 240, dtype=torch.float64, requires_grad=True)
        criterion = ExpectationLDLLoss(MONTHS, 15.0, weight, ends=ends, distance="smooth_l1")
        optimizer = torch.optim.LBFGS([logits], max_iter=300, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = criterion(logits, target)
            loss.backward()
            return loss

        optimizer.step(closure)
        probs = logits.detach().softmax(-1)
        return float((probs * MONTHS.centers.double()).sum())

    @pytest.mark.parametrize("value", [5.0, 235.0])
    def test_preserving_the_mean_leaves_it_unbiased(self, value: float) -> None:
        assert self.best(value, 10, "preserve_mean") == pytest.approx(value, abs=0.1)

    def test_renormalizing_biases_it(self) -> None:
        assert self.best(5.0, 100, "renormalize") > 8


class TestHostileInputs:
    @pytest.mark.parametrize("count", [2, 3, 240, 2000])
    @pytest.mark.parametrize("sigma", [0.1, 1.0, 15.0, 100.0])
    @pytest.mark.parametrize("ends", SCALED)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_finite_forward_and_backward(
        self, count: int, sigma: float, ends: str, dtype: torch.dtype
    ) -> None:
        target = torch.tensor([torch.nan, -1e6, 1.0, 1.5, count / 2, count, 1e6])
        signs = torch.arange(count) % 2 * 2.0 - 1
        spike = torch.where(torch.arange(count) == count // 2, 1.0, -1.0)
        for extreme in (signs, -signs, spike, -spike, torch.zeros(count)):
            logits = (1e4 * extreme).expand(len(target), -1).to(dtype).requires_grad_()
            for distance in DISTANCES:
                loss = expectation_ldl_loss(
                    logits, target, Bins(1, count), sigma, distance=distance, ends=ends
                )
                assert loss.isfinite()
                # Scaled, as mixed-precision training does it, so that half precision holds it.
                scaled = loss / loss.detach().clamp(min=1)
                (gradient,) = torch.autograd.grad(scaled, logits)
                assert gradient.isfinite().all()

    def test_gaps_at_which_a_softmax_underflows(self) -> None:
        for gap in torch.arange(80.0, 120.0, 2.0):
            logits = torch.zeros(1, 240)
            logits[0, 0] = gap
            logits.requires_grad_()
            loss = expectation_ldl_loss(logits, torch.tensor([200.0]), MONTHS, 1.0)
            loss.backward()
            assert loss.isfinite()
            assert logits.grad is not None
            assert logits.grad.isfinite().all()
            # the divergence goes on growing with the gap
            assert loss.item() == pytest.approx(199 + gap.item(), abs=3)

    def test_no_target_is_ignored_for_being_far_outside(self) -> None:
        logits = torch.zeros(1, 240, requires_grad=True)
        expectation_ldl_loss(logits, torch.tensor([1e5]), MONTHS, 15.0).backward()
        assert logits.grad is not None
        assert logits.grad[0, -1] < -1


class TestHalfPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_equal_to_the_upcast_logits(self, dtype: torch.dtype, autocast: bool) -> None:
        logits = (torch.randn(8, 240) * 4).to(dtype)
        target = torch.linspace(1, 240, 8)
        criterion = ExpectationLDLLoss(MONTHS, 15.0, reduction="none")
        want = criterion(logits.float(), target)
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            got = criterion(logits.requires_grad_(), target)
        assert got.dtype == torch.float32
        assert torch.equal(got, want)
        got.sum().backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()

    def test_autocast_with_a_model(self) -> None:
        layer = torch.nn.Linear(8, 240)
        inputs = torch.randn(4, 8)
        target = torch.tensor([10.0, 50.0, 100.0, torch.nan])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = layer(inputs)
            loss = expectation_ldl_loss(logits, target, MONTHS, 15.0)
        assert logits.dtype == torch.bfloat16
        assert torch.equal(loss, expectation_ldl_loss(logits.float(), target, MONTHS, 15.0))


class TestCompile:
    @pytest.mark.parametrize("ends", SCALED)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_one_graph(self, ends: str, dtype: torch.dtype) -> None:
        torch.compiler.reset()
        criterion = ExpectationLDLLoss(MONTHS, 15.0, ends=ends)
        compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
        logits = torch.randn(4, 240, dtype=dtype, requires_grad=True)
        target = torch.tensor([3.0, torch.nan, 100.0, 240.0])
        weight = torch.rand(4)
        got, want = (loss(logits, target, weight) for loss in (compiled, criterion))
        torch.testing.assert_close(got, want)
        gradients = [torch.autograd.grad(loss, logits)[0] for loss in (got, want)]
        torch.testing.assert_close(gradients[0], gradients[1])


class TestArguments:
    def test_function_and_module_have_equal_defaults(self) -> None:
        function = inspect.signature(expectation_ldl_loss).parameters
        module = inspect.signature(ExpectationLDLLoss).parameters
        assert list(module) == [
            name for name in function if name not in ("logits", "target", "sample_weight")
        ]
        for name in module:
            assert module[name].default == function[name].default
            assert module[name].kind == function[name].kind

    @pytest.mark.parametrize("distance", DISTANCES)
    def test_function_and_module_agree(self, distance: str) -> None:
        logits, target = torch.randn(3, 240), torch.tensor([1.0, 50.0, torch.nan])
        options = {"distance": distance, "ends": "extend", "reduction": "none"}
        module = ExpectationLDLLoss(MONTHS, 9.0, 2.0, **options)
        function = expectation_ldl_loss(logits, target, MONTHS, 9.0, 2.0, **options)
        assert torch.equal(module(logits, target), function)

    def test_targets_are_never_broadcast(self) -> None:
        criterion = ExpectationLDLLoss(MONTHS, 15.0)
        with pytest.raises(
            ValueError, match=r"target: expected shape \(N,\) with N = 8, got \(8, 1\)"
        ):
            criterion(torch.zeros(8, 240), torch.zeros(8, 1))
        with pytest.raises(
            ValueError, match=r"target: expected shape \(N,\) with N = 8, got \(1,\)"
        ):
            criterion(torch.zeros(8, 240), torch.zeros(1))
        with pytest.raises(ValueError, match=r"sample_weight: expected shape \(N,\) with N = 8"):
            criterion(torch.zeros(8, 240), torch.zeros(8), torch.zeros(8, 1))

    def test_logits(self) -> None:
        with pytest.raises(ValueError, match=r"logits: expected shape \(N, K\) with K = 240, got"):
            expectation_ldl_loss(torch.zeros(8, 239), torch.zeros(8), MONTHS, 15.0)
        with pytest.raises(TypeError, match="logits: expected a tensor of floating dtype, got"):
            expectation_ldl_loss(torch.zeros(8, 240).long(), torch.zeros(8), MONTHS, 15.0)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sigma": 0.0}, "sigma: expected"),
            ({"sigma": 1.0, "weight": -1.0}, "weight: expected"),
            ({"sigma": 1.0, "weight": float("nan")}, "weight: expected"),
            ({"sigma": 1.0, "distance": "mae"}, "distance: expected one of 'l1', 'l2'"),
            ({"sigma": 1.0, "ends": "clip"}, "ends: expected one of"),
            ({"sigma": 1.0, "reduction": "batchmean"}, "reduction: expected one of 'mean'"),
        ],
    )
    def test_options(self, options: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ExpectationLDLLoss(MONTHS, **options)
        with pytest.raises(ValueError, match=message):
            expectation_ldl_loss(torch.zeros(1, 240), torch.zeros(1), MONTHS, **options)

    @pytest.mark.parametrize("sigma", [torch.nn.Parameter(torch.ones(())), torch.ones(())])
    def test_a_sigma_that_looks_as_if_it_were_trained(self, sigma: Tensor) -> None:
        with pytest.raises(TypeError, match="sigma: expected a number, got"):
            ExpectationLDLLoss(MONTHS, sigma)
        with pytest.raises(ValueError, match=r"sigma: expected shape \(N,\) with N = 1, got \(\)"):
            expectation_ldl_loss(torch.zeros(1, 240), torch.zeros(1), MONTHS, sigma)

    def test_bins(self) -> None:
        for make in (ExpectationLDLLoss, ExpectationLDLLoss.paper, ExpectationLDLLoss.dldl_v2):
            with pytest.raises(TypeError, match="bins: expected a Bins, got list"):
                make([1, 2], 1.0)
        with pytest.raises(TypeError, match="bins: expected a Bins, got int"):
            expectation_ldl_loss(torch.zeros(1, 240), torch.zeros(1), 240, 15.0)

    def test_whole_number_targets(self) -> None:
        logits = torch.randn(2, 240)
        torch.testing.assert_close(
            expectation_ldl_loss(logits, torch.tensor([7, 200]), MONTHS, 15.0),
            expectation_ldl_loss(logits, torch.tensor([7.0, 200.0]), MONTHS, 15.0),
        )

    def test_repr_and_state(self) -> None:
        criterion = ExpectationLDLLoss(MONTHS, 15.0)
        assert "sigma=15, weight=sigma, distance='l1', ends='renormalize'" in repr(criterion)
        assert set(criterion.state_dict()) == {"bins.centers", "bins.edges"}
        assert not list(criterion.parameters())

    def test_device(self, device: torch.device) -> None:
        criterion = ExpectationLDLLoss(Bins(1, 240), 15.0).to(device)
        for dtype in (torch.bfloat16, torch.float64):
            logits = torch.zeros(3, 240, device=device, dtype=dtype, requires_grad=True)
            terms = criterion.terms(logits, torch.ones(3, device=device))
            for term in terms:
                assert term.shape == ()
                assert term.device.type == device.type
                assert term.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            terms.total.backward()
            assert logits.grad is not None
            assert logits.grad.dtype == dtype
