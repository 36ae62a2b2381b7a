import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from ldlcam.ldl import (
    BinCrossEntropyLoss,
    Bins,
    CRPSLoss,
    ExpectationLDLLoss,
    ExpectationLoss,
    LabelDivergenceLoss,
    MeanVarianceLoss,
    expectation_ldl_loss,
    gaussian_labels,
)
from tests.ldl import oracles

MONTHS = Bins(1, 240, unit="months")
UNEVEN = Bins.from_centers([0, 1, 2, 4, 8, 12, 20], edges=[-1, 0.5, 1.5, 3, 6, 10, 14, 30])
Make = Callable[..., nn.Module]
LOSSES: dict[str, Make] = {
    "expectation": ExpectationLoss,
    "expectation, l2": lambda bins, **options: ExpectationLoss(bins, distance="l2", **options),
    "divergence": lambda bins, **options: LabelDivergenceLoss(bins, 2.0, **options),
    "reverse divergence": lambda bins, **options: LabelDivergenceLoss(
        bins, 2.0, reverse=True, **options
    ),
    "crps": CRPSLoss,
    "cross-entropy": BinCrossEntropyLoss,
    "two-hot": lambda bins, **options: BinCrossEntropyLoss(bins, label="two_hot", **options),
    "mean-variance": MeanVarianceLoss,
    "expectation ldl": lambda bins, **options: ExpectationLDLLoss(bins, 2.0, **options),
    "expectation ldl, reverse": lambda bins, **options: ExpectationLDLLoss(
        bins, 2.0, reverse=True, **options
    ),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


class TestAgainstTheFormulas:
    targets = (-2.0, 0.0, 0.2, 3.3, 8.0, 13.0, 25.0)
    logits = torch.linspace(-2, 3, 7 * 7, dtype=torch.float64).reshape(7, 7).sin() * 3

    def each(self, criterion: nn.Module) -> np.ndarray:
        target = torch.tensor(self.targets, dtype=torch.float64)
        found: np.ndarray = criterion(self.logits, target).numpy()
        return found

    def rows(self) -> list[tuple[float, oracles.Array, oracles.Array]]:
        centers = UNEVEN.centers_as(torch.float64, torch.device("cpu")).numpy()
        probs = special.softmax(self.logits.numpy(), axis=1)
        return [(value, row, centers) for value, row in zip(self.targets, probs, strict=True)]

    def test_crps(self) -> None:
        want = [oracles.crps(*row) for row in self.rows()]
        np.testing.assert_allclose(self.each(CRPSLoss(UNEVEN, reduction="none")), want, atol=1e-12)

    def test_expectation(self) -> None:
        want = [abs(probs @ centers - value) for value, probs, centers in self.rows()]
        got = self.each(ExpectationLoss(UNEVEN, reduction="none"))
        np.testing.assert_allclose(got, want, atol=1e-12)

    @pytest.mark.parametrize("reverse", [False, True])
    def test_divergence(self, reverse: bool) -> None:
        labels = gaussian_labels(torch.tensor(self.targets, dtype=torch.float64), UNEVEN, 2.0)
        want = [
            special.rel_entr(*((probs, label) if reverse else (label, probs))).sum()
            for (_, probs, _), label in zip(self.rows(), labels.numpy(), strict=True)
        ]
        criterion = LabelDivergenceLoss(UNEVEN, 2.0, reverse=reverse, reduction="none")
        np.testing.assert_allclose(self.each(criterion), want, atol=1e-12)

    def test_cross_entropy(self) -> None:
        target = torch.tensor(self.targets, dtype=torch.float64)
        want = functional.cross_entropy(self.logits, UNEVEN.index(target), reduction="none")
        got = self.each(BinCrossEntropyLoss(UNEVEN, reduction="none"))
        np.testing.assert_allclose(got, want.numpy(), atol=1e-12)

    def test_two_hot_is_the_interpolated_cross_entropy(self) -> None:
        want = [-np.interp(value, centers, np.log(probs)) for value, probs, centers in self.rows()]
        got = self.each(BinCrossEntropyLoss(UNEVEN, label="two_hot", reduction="none"))
        np.testing.assert_allclose(got, want, atol=1e-12)

    def test_mean_variance(self) -> None:
        target = torch.tensor(self.targets, dtype=torch.float64)
        index = UNEVEN.index(target).tolist()
        criterion = MeanVarianceLoss(UNEVEN, 0.3, 0.07, reduction="none")
        terms = criterion.terms(self.logits, target)
        for i, (value, probs, centers) in enumerate(self.rows()):
            mean = probs @ centers
            variance = probs @ (centers - mean) ** 2
            entropy = -np.log(probs[index[i]])
            want = [entropy, (mean - value) ** 2 / 2, variance]
            want.append(entropy + 0.3 * want[1] + 0.07 * variance)
            np.testing.assert_allclose([term[i].item() for term in terms], want, rtol=1e-10)
        assert torch.equal(terms.total, criterion(self.logits, target))


class TestOneSignature:
    """What holds for the expectation loss holds for all of them."""

    target = torch.tensor([0.2, 3.3, torch.nan, 19.0, -1.0], dtype=torch.float64)

    @every_loss
    def test_first_and_second_derivatives(self, make: Make) -> None:
        logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
        criterion = make(UNEVEN)
        assert gradcheck(lambda logits: criterion(logits, self.target), logits)
        assert gradgradcheck(lambda logits: criterion(logits, self.target), logits)

    @every_loss
    def test_missing_targets_weigh_nothing(self, make: Make) -> None:
        logits = torch.randn(5, 7, requires_grad=True)
        make(UNEVEN)(logits, self.target).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert (logits.grad[2] == 0).all()
        present = [0, 1, 3, 4]
        whole = make(UNEVEN)(logits, self.target)
        torch.testing.assert_close(whole, make(UNEVEN)(logits[present], self.target[present]))
        assert make(UNEVEN)(logits[:0], self.target[:0]) == 0

    @every_loss
    @pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 0.0, 2.0])], ids=str)
    def test_an_infinite_loss_without_weight(self, make: Make, weight: torch.Tensor | None) -> None:
        target = torch.tensor([3.3, torch.nan if weight is None else 0.0, 19.0])
        logits = torch.randn(3, 7)
        logits[1, 0] = -torch.inf
        logits.requires_grad_()
        others = [0, 2]
        few = None if weight is None else weight[others]
        assert make(UNEVEN, reduction="none")(logits, target, weight)[1] == 0
        loss = make(UNEVEN)(logits, target, weight)
        known = make(UNEVEN)(logits[others], target[others], few)
        torch.testing.assert_close(loss, known)
        mine, its = (torch.autograd.grad(each, logits)[0] for each in (loss, known))
        torch.testing.assert_close(mine, its)
        assert not mine[1].any()

    @every_loss
    def test_what_are_no_bins(self, make: Make) -> None:
        with pytest.raises(TypeError, match="bins: expected a Bins, got int"):
            make(3)

    @every_loss
    def test_weights_and_reductions(self, make: Make) -> None:
        logits, weight = torch.randn(5, 7), torch.tensor([1.0, 0.5, torch.nan, 2.0, 0.0])
        each = make(UNEVEN, reduction="none")(logits, self.target, weight)
        assert each.shape == (5,)
        total = make(UNEVEN, reduction="sum")(logits, self.target, weight)
        torch.testing.assert_close(total, each.sum())
        mean = make(UNEVEN)(logits, self.target, weight)
        torch.testing.assert_close(mean, each.sum() / 3.5)

    @every_loss
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("count", [2, 2000])
    def test_hostile_logits_and_targets(self, make: Make, dtype: torch.dtype, count: int) -> None:
        target = torch.tensor([torch.nan, -1e6, 1.0, count / 2, 1e6])
        signs = torch.arange(count) % 2 * 2.0 - 1
        for extreme in (signs, -signs, torch.zeros(count)):
            logits = (1e4 * extreme).expand(5, -1).to(dtype).requires_grad_()
            loss = make(Bins(1, count))(logits, target)
            assert loss.isfinite()
            scaled = loss / loss.detach().clamp(min=1)
            (gradient,) = torch.autograd.grad(scaled, logits)
            assert gradient.isfinite().all()

    @every_loss
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_autocast_changes_nothing(self, make: Make, dtype: torch.dtype) -> None:
        logits, target = torch.randn(5, 7).to(dtype), self.target
        with torch.autocast("cpu", dtype=dtype):
            found = make(UNEVEN)(logits, target)
        assert found.dtype == torch.float32
        assert torch.equal(found, make(UNEVEN)(logits.float(), target))

    @every_loss
    def test_compiles_to_one_graph(self, make: Make) -> None:
        torch.compiler.reset()
        criterion = make(UNEVEN)
        compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
        logits = torch.randn(5, 7, requires_grad=True)
        got, want = (loss(logits, self.target) for loss in (compiled, criterion))
        torch.testing.assert_close(got, want)
        gradients = [torch.autograd.grad(loss, logits)[0] for loss in (got, want)]
        torch.testing.assert_close(*gradients)

    @every_loss
    def test_device(self, make: Make, device: torch.device) -> None:
        criterion = make(UNEVEN, reduction="none").to(device)
        logits = torch.randn(5, 7, device=device, requires_grad=True)
        found = criterion(logits, torch.ones(5, device=device))
        found.sum().backward()
        assert found.shape == (5,)
        assert found.device.type == device.type

    @every_loss
    def test_targets_are_never_broadcast(self, make: Make) -> None:
        for size in ((5, 1), (1,), ()):
            with pytest.raises(ValueError, match=r"target: expected shape \(N,\) with N = 5, got"):
                make(UNEVEN)(torch.zeros(5, 7), torch.zeros(size))
        with pytest.raises(ValueError, match=r"logits: expected shape \(N, K\) with K = 7, got"):
            make(UNEVEN)(torch.zeros(5, 8), torch.zeros(5))
        with pytest.raises(ValueError, match="reduction: expected one of 'mean', 'sum', 'none'"):
            make(UNEVEN, reduction="batchmean")


def test_the_expectation_loss_is_the_sum_of_its_parts() -> None:
    logits, target = torch.randn(9, 240), torch.linspace(-5, 250, 9)
    parts = (
        ExpectationLoss(MONTHS)(logits, target),
        LabelDivergenceLoss(MONTHS, 9.0)(logits, target),
    )
    whole = expectation_ldl_loss(logits, target, MONTHS, 9.0, 2.0)
    torch.testing.assert_close(whole, parts[0] + 2 * parts[1])


def test_crps_asks_for_the_right_spread() -> None:
    """A proper score: of Gaussians around the mean, the best on average is the true one."""
    target = 120 + 10 * torch.randn(4000, dtype=torch.float64)
    scores = []
    for spread in (4.0, 7.0, 10.0, 14.0, 20.0):
        logits = -((MONTHS.centers.double() - 120) / spread).square() / 2
        scores.append(CRPSLoss(MONTHS)(logits.expand(4000, -1), target).item())
    assert np.argmin(scores) == 2


def test_refusing_options() -> None:
    for make, message in (
        (lambda: LabelDivergenceLoss(MONTHS, 0.0), "sigma: expected"),
        (lambda: LabelDivergenceLoss(MONTHS, 1.0, ends="clip"), "ends: expected"),
        (lambda: ExpectationLoss(MONTHS, distance="mae"), "distance: expected"),
        (lambda: BinCrossEntropyLoss(MONTHS, label="soft"), "label: expected"),
        (lambda: MeanVarianceLoss(MONTHS, -1.0), "mean_weight: expected"),
        (lambda: MeanVarianceLoss(MONTHS, 1.0, torch.inf), "variance_weight: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    for sigma in (nn.Parameter(torch.ones(())), torch.ones(())):
        with pytest.raises(TypeError, match="sigma: expected a number, got"):
            LabelDivergenceLoss(MONTHS, sigma)
    criterion = LabelDivergenceLoss(MONTHS, 1.0, ends="error")
    with pytest.raises(ValueError, match=r"values: expected all from 0\.5 to 240\.5"):
        criterion(torch.zeros(2, 240), torch.tensor([5.0, 300.0]))


def test_bins_are_saved_with_every_loss() -> None:
    saved = CRPSLoss(MONTHS).state_dict()
    with pytest.raises(RuntimeError, match="saved with other bins"):
        CRPSLoss(Bins(0, 239)).load_state_dict(saved)
    assert list(saved) == ["bins.centers", "bins.edges"]


@pytest.mark.parametrize(
    "criterion",
    [
        BinCrossEntropyLoss(MONTHS),
        BinCrossEntropyLoss(MONTHS, label="two_hot"),
        MeanVarianceLoss(MONTHS),
    ],
    ids=str,
)
def test_bins_that_are_ruled_out_count_nothing(criterion: torch.nn.Module) -> None:
    logits = torch.randn(4, 240, dtype=torch.float64)
    logits[:, 120:] = -torch.inf
    logits.requires_grad_()
    target = torch.tensor([1.0, 20.5, 60.0, 119.0], dtype=torch.float64)
    narrow = logits.detach()[:, :120].clone().requires_grad_()
    few = copy.deepcopy(criterion)
    few.bins = Bins(1, 120)
    loss, known = criterion(logits, target), few(narrow, target)
    torch.testing.assert_close(loss, known)
    (mine,), (its,) = torch.autograd.grad(loss, logits), torch.autograd.grad(known, narrow)
    torch.testing.assert_close(mine[:, :120], its)
    assert not mine[:, 120:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_target_beyond_the_dtype_is_missing(dtype: torch.dtype) -> None:
    logits = torch.randn(2, 240).to(dtype)
    target = torch.tensor([1e300, 20.0], dtype=torch.float64)
    criterion = LabelDivergenceLoss(MONTHS, 9.0)
    torch.testing.assert_close(criterion(logits, target), criterion(logits[1:], target[1:]))
