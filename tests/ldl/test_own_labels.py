"""Targets that come with labels of their own: a sigma for each value, or a distribution."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from ldlcam.ldl import (
    BinCrossEntropyLoss,
    Bins,
    CRPSLoss,
    ExpectationLDLLoss,
    ExpectationLoss,
    LabelDivergenceLoss,
    MeanVarianceLoss,
    expectation_ldl_loss,
    fused,
    gaussian_labels,
)
from ldlcam.ldl.log_labels import ENDS
from ldlcam.ldl.loss_parts import DISTANCES

MONTHS = Bins(1, 240, unit="months")
UNEVEN = Bins.from_centers([0, 1, 2, 4, 8, 12, 20], edges=[-1, 0.5, 1.5, 3, 6, 10, 14, 30])
SCALED = [end for end in ENDS if end != "error"]
Make = Callable[..., nn.Module]
SPREAD: dict[str, Make] = {
    "expectation ldl": lambda bins, sigma=None, **options: ExpectationLDLLoss(
        bins, sigma, 0.7, **options
    ),
    "expectation ldl, reverse": lambda bins, sigma=None, **options: ExpectationLDLLoss(
        bins, sigma, 0.7, reverse=True, **options
    ),
    "divergence": LabelDivergenceLoss,
}
LOSSES: dict[str, Make] = {
    **SPREAD,
    "expectation": ExpectationLoss,
    "crps": CRPSLoss,
    "cross-entropy": BinCrossEntropyLoss,
    "mean-variance": MeanVarianceLoss,
}
spread_loss = pytest.mark.parametrize("make", SPREAD.values(), ids=SPREAD)
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows at a time, so that a batch has several chunks, the last one shorter."""
    monkeypatch.setattr(fused, "_CHUNK_BYTES", {"cpu": 3 * 240 * 8})


@pytest.mark.usefixtures("_small_chunks")
class TestSigmaOfEachSample:
    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("ends", SCALED)
    @pytest.mark.parametrize("bins", [MONTHS, UNEVEN], ids=repr)
    @pytest.mark.parametrize("distance", DISTANCES)
    def test_as_each_sample_by_itself(
        self, bins: Bins, ends: str, reverse: bool, distance: str
    ) -> None:
        options = {"distance": distance, "ends": ends, "reverse": reverse, "reduction": "none"}
        logits = torch.randn(12, len(bins), dtype=torch.float64, requires_grad=True)
        target = torch.linspace(bins.first - 3, bins.last + 3, 12, dtype=torch.float64)
        sigmas = torch.linspace(0.4, bins.last / 4, 12, dtype=torch.float64)
        each = ExpectationLDLLoss(bins, 1.0, **options)(logits, target, sigma=sigmas)
        alone = [
            ExpectationLDLLoss(bins, sigma, **options)(logits[i : i + 1], target[i : i + 1])
            for i, sigma in enumerate(sigmas.tolist())
        ]
        torch.testing.assert_close(each, torch.cat(alone))
        gradients = [
            torch.autograd.grad(loss.sum(), logits)[0] for loss in (each, torch.cat(alone))
        ]
        torch.testing.assert_close(*gradients)

    @spread_loss
    def test_a_number_at_the_call(self, make: Make) -> None:
        logits, target = torch.randn(4, 240), torch.tensor([5.0, 60.0, 130.0, 239.0])
        want = make(MONTHS, 7.0)(logits, target)
        torch.testing.assert_close(make(MONTHS, 15.0)(logits, target, sigma=7.0), want)
        torch.testing.assert_close(make(MONTHS)(logits, target, sigma=7.0), want)

    def test_the_function_takes_them_too(self) -> None:
        logits, target = torch.randn(3, 240), torch.tensor([5.0, 60.0, 130.0])
        sigmas = torch.tensor([2, 9, 15])
        got = expectation_ldl_loss(logits, target, MONTHS, sigmas)
        torch.testing.assert_close(
            got, ExpectationLDLLoss(MONTHS)(logits, target, None, sigmas.float())
        )

    @pytest.mark.parametrize("distance", DISTANCES)
    def test_the_default_weight_is_each_samples_own(self, distance: str) -> None:
        logits, target = torch.randn(3, 240), torch.tensor([5.0, 60.0, 130.0])
        sigmas = torch.tensor([2.0, 9.0, 15.0])
        criterion = ExpectationLDLLoss(MONTHS, distance=distance, reduction="none")
        terms = criterion.terms(logits, target, sigma=sigmas)
        weights = sigmas.square() if distance == "l2" else sigmas
        torch.testing.assert_close(terms.total, terms.distance + weights * terms.divergence)

    @spread_loss
    def test_missing_sigmas_weigh_nothing(self, make: Make) -> None:
        logits = torch.randn(4, 240, requires_grad=True)
        target = torch.tensor([5.0, 60.0, torch.nan, 239.0])
        sigmas = torch.tensor([3.0, torch.nan, 4.0, torch.inf])
        loss = make(MONTHS)(logits, target, sigma=sigmas)
        torch.testing.assert_close(loss, make(MONTHS, 3.0)(logits[:1], target[:1]))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient[0].any()
        assert not gradient[1:].any()

    @spread_loss
    @pytest.mark.parametrize("sigma", [0.0, -2.0, 1e-30])
    def test_no_spread_is_all_in_the_nearest_bin(self, make: Make, sigma: float) -> None:
        logits = torch.randn(3, 240, dtype=torch.float64, requires_grad=True)
        target = torch.tensor([60.2, 3.0, 500.0], dtype=torch.float64)
        criterion = make(MONTHS, reduction="none")
        each = criterion(logits, target, sigma=torch.full((3,), sigma))
        assert each.isfinite().all()
        assert torch.autograd.grad(each.sum(), logits)[0].isfinite().all()
        if make is LabelDivergenceLoss:
            nearest = [59, 2, 239]
            torch.testing.assert_close(each, -logits.log_softmax(-1)[[0, 1, 2], nearest])

    def test_the_narrowest(self) -> None:
        """Smaller sigmas count as a tenth of a bin, in the weight as in the label."""
        logits, target = torch.randn(3, 7), torch.tensor([0.3, 4.0, 12.2])
        criterion = ExpectationLDLLoss(UNEVEN, reverse=True)
        least = criterion(logits, target, sigma=0.1)
        for sigma in (0.0, 0.01, -5.0):
            got = criterion(logits, target, sigma=torch.full((3,), sigma))
            torch.testing.assert_close(got, least)
        # One of all values alike.
        torch.testing.assert_close(criterion(logits, target, sigma=1e-30), least)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_narrowest_that_keep_their_mean(self, dtype: torch.dtype) -> None:
        target = torch.tensor([24.0, 24.3, 24.5, 24.9], dtype=dtype)
        logits = torch.zeros(4, 240, dtype=dtype, requires_grad=True)
        loss = LabelDivergenceLoss(MONTHS, ends="preserve_mean", reduction="sum")
        (gradient,) = torch.autograd.grad(loss(logits, target, sigma=torch.zeros(4)), logits)
        means = ((1 / 240 - gradient) * MONTHS.centers).sum(-1)
        torch.testing.assert_close(means, target, rtol=0, atol=1e-2)

    @given(st.integers(0, 10**6))
    def test_any_sigmas_in_float32(self, seed: int) -> None:
        """Narrow and wide ones side by side are as exact as in float64."""
        generator = torch.Generator().manual_seed(seed)
        logits = 3 * torch.randn(9, 240, generator=generator)
        target = 260 * torch.rand(9, generator=generator) - 10
        sigmas = 10 ** (6 * torch.rand(9, generator=generator) - 3)
        got = LabelDivergenceLoss(MONTHS, reduction="none")(logits, target, sigma=sigmas)
        want = LabelDivergenceLoss(MONTHS, reduction="none")(
            logits.double(), target.double(), sigma=sigmas.double()
        )
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("ends", SCALED)
    def test_derivatives(self, ends: str) -> None:
        """By the logits twice, and by the sigmas: they can be learned."""
        logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
        target = torch.tensor([0.2, 3.3, 5.9, torch.nan], dtype=torch.float64)
        sigmas = torch.tensor([0.7, 1.3, 2.0, 1.0], dtype=torch.float64, requires_grad=True)

        def loss(logits: Tensor, sigmas: Tensor) -> Tensor:
            return expectation_ldl_loss(logits, target, Bins(1, 6), sigmas, 0.8, ends=ends)

        assert gradcheck(loss, (logits, sigmas))
        assert gradgradcheck(lambda logits: loss(logits, sigmas.detach()), logits)

    def test_many_batches_by_vmap(self) -> None:
        logits = torch.randn(4, 9, 240, dtype=torch.float64)
        target, sigmas = 240 * torch.rand(4, 9).double(), 1 + 9 * torch.rand(4, 9).double()
        loss = ExpectationLDLLoss(MONTHS)
        for in_dims, arguments in (
            ((0, 0, None, 0), (logits, target, None, sigmas)),
            ((0, None, None, None), (logits, target[0], None, sigmas[0])),
            ((None, None, None, 0), (logits[0], target[0], None, sigmas)),
        ):
            each = torch.func.vmap(loss, in_dims=in_dims)(*arguments)
            known = [
                loss(
                    *(a if dim is None else a[i] for a, dim in zip(arguments, in_dims, strict=True))
                )
                for i in range(4)
            ]
            torch.testing.assert_close(each, torch.stack(known))

    @spread_loss
    def test_device_and_compiler(self, make: Make, device: torch.device) -> None:
        torch.compiler.reset()
        criterion = make(MONTHS).to(device)
        logits = torch.randn(5, 240, device=device, requires_grad=True)
        arguments = torch.rand(5, device=device) * 240, None, torch.rand(5, device=device) * 9
        loss = criterion(logits, *arguments)
        assert loss.device.type == device.type
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.shape == logits.shape
        if device.type != "meta":
            compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
            torch.testing.assert_close(compiled(logits, *arguments), loss)

    def test_refusals(self) -> None:
        logits, target = torch.zeros(3, 240), torch.zeros(3)
        for criterion in (ExpectationLDLLoss(MONTHS), LabelDivergenceLoss(MONTHS)):
            with pytest.raises(ValueError, match="sigma: expected a number, or one for each value"):
                criterion(logits, target)
            for size in ((), (1,), (3, 1)):
                with pytest.raises(ValueError, match=r"sigma: expected shape \(N,\) with N = 3"):
                    criterion(logits, target, sigma=torch.ones(size))
            with pytest.raises(ValueError, match="sigma: expected a finite number above 0"):
                criterion(logits, target, sigma=0.0)
            with pytest.raises(TypeError, match="sigma: expected a tensor of real dtype, got"):
                criterion(logits, target, sigma=torch.ones(3) > 0)
        with pytest.raises(ValueError, match="label_scale: expected 'probabilities' where labels"):
            ExpectationLDLLoss.paper(MONTHS)(logits, target, sigma=torch.ones(3))
        with pytest.raises(TypeError, match=r"sigma: expected a number, got Tensor; where each"):
            ExpectationLDLLoss(MONTHS, torch.ones(3))


class TestDistributions:
    logits = torch.linspace(-2, 3, 5 * 7, dtype=torch.float64).reshape(5, 7).sin() * 3
    votes = torch.tensor(
        [
            [0, 0, 3, 1, 0, 0, 0],
            [1, 1, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0, 0, 9],
            [2, 0, 0, 0, 0, 0, 2],
            [0, 7, 11, 13, 2, 0, 1],
        ]
    )

    def rows(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Labels and predictions."""
        labels = self.votes.numpy() / self.votes.numpy().sum(1, keepdims=True)
        return list(zip(labels, special.softmax(self.logits.numpy(), axis=1), strict=True))

    centers = np.array([0.0, 1, 2, 4, 8, 12, 20])

    def formulas(self) -> dict[str, list[float]]:
        def distance(label: np.ndarray, probs: np.ndarray) -> float:
            return float(abs((probs - label) @ self.centers))

        def squared_gap(label: np.ndarray, probs: np.ndarray) -> float:
            """The integral itself, of two step functions."""

            def gap(x: float) -> float:
                below = self.centers <= x
                return float((probs[below].sum() - label[below].sum()) ** 2)

            return float(integrate.quad(gap, 0, 20, points=self.centers[1:-1], limit=200)[0])

        def mean_variance(label: np.ndarray, probs: np.ndarray) -> float:
            mean = probs @ self.centers
            variance = float(probs @ (self.centers - mean) ** 2)
            entropy = float(stats.entropy(label) + stats.entropy(label, probs))
            return entropy + 0.1 * distance(label, probs) ** 2 + 0.05 * variance

        each = {
            "divergence": lambda label, probs: stats.entropy(label, probs),
            "expectation": distance,
            "expectation ldl": lambda label, probs: (
                distance(label, probs) + 0.7 * stats.entropy(label, probs)
            ),
            "expectation ldl, reverse": lambda label, probs: (
                distance(label, probs)
                + 0.7 * special.rel_entr(probs, np.maximum(label, 1e-26)).sum()
            ),
            "crps": squared_gap,
            "cross-entropy": lambda label, probs: (
                stats.entropy(label) + stats.entropy(label, probs)
            ),
            "mean-variance": mean_variance,
        }
        return {name: [float(of(*row)) for row in self.rows()] for name, of in each.items()}

    @pytest.mark.parametrize("name", LOSSES)
    def test_against_the_formulas(self, name: str) -> None:
        got = LOSSES[name](UNEVEN, reduction="none")(self.logits, self.votes)
        np.testing.assert_allclose(got.numpy(), self.formulas()[name], rtol=1e-7, atol=1e-9)

    @every_loss
    @given(st.floats(1e-6, 1e6))
    def test_votes_are_what_they_are_in_proportion(self, make: Make, scale: float) -> None:
        criterion = make(UNEVEN)
        got = criterion(self.logits, scale * self.votes)
        torch.testing.assert_close(got, criterion(self.logits, self.votes))

    @pytest.mark.parametrize("name", ["expectation", "crps", "cross-entropy", "mean-variance"])
    def test_all_votes_for_one_bin_are_the_value_at_its_centre(self, name: str) -> None:
        index = torch.tensor([0, 2, 3, 5, 6])
        target = UNEVEN.centers.double()[index]
        labels = nn.functional.one_hot(index, 7)
        criterion = LOSSES[name](UNEVEN)
        torch.testing.assert_close(criterion(self.logits, labels), criterion(self.logits, target))

    @pytest.mark.parametrize("name", ["divergence", "expectation ldl"])
    def test_gaussian_labels_are_those_of_the_values(self, name: str) -> None:
        """In the middle of the range, where the label's mean is the value."""
        logits = torch.randn(6, 240, dtype=torch.float64, requires_grad=True)
        target = torch.linspace(70, 170, 6, dtype=torch.float64)
        labels = gaussian_labels(target, MONTHS, 9.0)
        make = LOSSES[name]
        losses = make(MONTHS)(logits, labels), make(MONTHS, 9.0)(logits, target)
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in losses))

    @every_loss
    def test_missing_rows_weigh_nothing(self, make: Make) -> None:
        logits = torch.randn(6, 7, requires_grad=True)
        labels = torch.rand(6, 7)
        labels[0], labels[1, 3], labels[3, 2], labels[4, 0] = 0, torch.nan, -0.1, torch.inf
        loss = make(UNEVEN)(logits, labels)
        torch.testing.assert_close(loss, make(UNEVEN)(logits[[2, 5]], labels[[2, 5]]))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isfinite().all()
        assert gradient.any(-1).tolist() == [False, False, True, False, False, True]
        assert make(UNEVEN)(logits, torch.zeros(6, 7)) == 0
        assert make(UNEVEN)(logits[:0], labels[:0]) == 0

    @pytest.mark.parametrize("name", ["divergence", "expectation ldl", "cross-entropy"])
    @pytest.mark.parametrize("out", [-torch.inf, -1e30])
    def test_what_votes_leave_out_can_be_ruled_out(self, name: str, out: float) -> None:
        votes = torch.tensor([[1, 2, 3, 0, 0, 0, 0], [0, 0, 5, 1, 0, 0, 0]])
        logits = torch.randn(2, 7, dtype=torch.float64)
        logits[:, 4:] = out
        logits.requires_grad_()
        few = Bins.from_centers([0, 1, 2, 4])
        losses = (
            LOSSES[name](UNEVEN)(logits, votes),
            LOSSES[name](few)(logits[:, :4], votes[:, :4]),
            LOSSES[name](UNEVEN)(logits, votes.double().requires_grad_()),
        )
        for loss in losses[1:]:
            torch.testing.assert_close(losses[0], loss)
        gradients = [torch.autograd.grad(loss, logits)[0] for loss in losses]
        for gradient in gradients[1:]:
            torch.testing.assert_close(gradients[0], gradient)

    @pytest.mark.parametrize("make", [BinCrossEntropyLoss, MeanVarianceLoss])
    def test_derivatives_by_labels_that_are_0(self, make: Make) -> None:
        """As by those that are nearly 0."""
        gradients = []
        for least in (0.0, 1e-9):
            labels = self.votes.double().clamp(min=least).requires_grad_()
            loss = make(UNEVEN)(self.logits, labels)
            gradients += torch.autograd.grad(loss, labels)
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)

    @every_loss
    @pytest.mark.usefixtures("_small_chunks")
    def test_derivatives(self, make: Make) -> None:
        """By the logits twice, and by the labels: a network can have made them."""
        logits = self.logits.clone().requires_grad_()
        labels = (self.votes + 0.5).double().requires_grad_()
        criterion = make(UNEVEN)
        assert gradcheck(criterion, (logits, labels))
        fixed = labels.detach()
        assert gradcheck(lambda logits: criterion(logits, fixed), logits)
        assert gradgradcheck(lambda logits: criterion(logits, fixed), logits)

    @spread_loss
    @pytest.mark.usefixtures("_small_chunks")
    def test_rows_taken_a_few_at_a_time(self, make: Make) -> None:
        logits = torch.randn(38, 240, dtype=torch.float64, requires_grad=True)
        labels = torch.rand(38, 240, dtype=torch.float64).relu()
        labels[:, ::3] = 0
        learned = labels.clone().requires_grad_()  # goes the long way
        losses = make(MONTHS)(logits, labels), make(MONTHS)(logits, learned)
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in losses))

    @every_loss
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_hostile_logits(self, make: Make, dtype: torch.dtype) -> None:
        signs = torch.arange(7) % 2 * 2.0 - 1
        for extreme in (signs, -signs, torch.zeros(7)):
            logits = (1e4 * extreme).expand(5, -1).to(dtype).requires_grad_()
            loss = make(UNEVEN)(logits, self.votes)
            assert loss.isfinite()
            (gradient,) = torch.autograd.grad(loss / loss.detach().clamp(min=1), logits)
            assert gradient.isfinite().all()

    @every_loss
    def test_autocast_changes_nothing(self, make: Make) -> None:
        logits, labels = torch.randn(5, 7).bfloat16(), torch.rand(5, 7)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = make(UNEVEN)(logits, labels)
        assert torch.equal(found, make(UNEVEN)(logits.float(), labels))

    @every_loss
    def test_device_and_compiler(self, make: Make, device: torch.device) -> None:
        torch.compiler.reset()
        criterion = make(UNEVEN).to(device)
        logits = torch.randn(5, 7, device=device, requires_grad=True)
        labels = self.votes.to(device)
        loss = criterion(logits, labels)
        assert loss.device.type == device.type
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.shape == logits.shape
        if device.type != "meta":
            compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
            torch.testing.assert_close(compiled(logits, labels), loss)

    def test_many_batches_by_vmap(self) -> None:
        logits, labels = torch.randn(4, 9, 240).double(), torch.rand(4, 9, 240).double()
        loss = ExpectationLDLLoss(MONTHS, weight=2.0)
        each = torch.func.vmap(loss)(logits, labels)
        torch.testing.assert_close(
            each, torch.stack([loss(*one) for one in zip(logits, labels, strict=True)])
        )

    def test_the_weight(self) -> None:
        votes, logits = self.votes, self.logits
        with pytest.raises(ValueError, match="weight: expected a number where there is no sigma"):
            ExpectationLDLLoss(UNEVEN)(logits, votes)
        torch.testing.assert_close(
            ExpectationLDLLoss(UNEVEN, 3.0)(logits, votes),
            ExpectationLDLLoss(UNEVEN, weight=3.0)(logits, votes),
        )

    @every_loss
    def test_shapes(self, make: Make) -> None:
        criterion = make(UNEVEN)
        for size in ((5, 6), (4, 7)):
            with pytest.raises(ValueError, match=r"target: expected shape \(N, K\) with N = 5, K "):
                criterion(torch.zeros(5, 7), torch.ones(size))
        with pytest.raises(ValueError, match=r"target: expected shape \(N,\) with N = 5, got"):
            criterion(torch.zeros(5, 7), torch.ones(5, 7, 1))

    def test_other_refusals(self) -> None:
        logits, labels = torch.zeros(5, 7), torch.ones(5, 7)
        with pytest.raises(ValueError, match="sigma: expected a number or none for label"):
            LabelDivergenceLoss(UNEVEN)(logits, labels, sigma=torch.ones(5))
        with pytest.raises(ValueError, match="label_scale: expected 'probabilities' where labels"):
            ExpectationLDLLoss.paper(UNEVEN)(logits, labels)
