"""Rows taken a few at a time, with a backward pass of their own, are the loss as it reads."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from ldlcam.ldl import (
    Bins,
    ExpectationLDLLoss,
    LabelDivergenceLoss,
    expectation_ldl_loss,
    fused,
)
from ldlcam.ldl.fused import as_it_reads, row_terms
from ldlcam.ldl.log_labels import ENDS
from ldlcam.ldl.loss_parts import DISTANCES, Criterion

MONTHS = Bins(1, 240, unit="months")
UNEVEN = Bins.from_centers([0, 1, 2, 4, 8, 12, 20], edges=[-1, 0.5, 1.5, 3, 6, 10, 14, 30])
CRITERIA = [
    Criterion(bins, sigma, ends, reverse, distance)
    for bins, sigma in ((MONTHS, 15.0), (UNEVEN, 2.0))
    for ends in ENDS
    if ends != "error"
    for reverse in (False, True)
    for distance in DISTANCES
]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows of months at a time, so that a batch has several chunks, the last one shorter."""
    monkeypatch.setattr(fused, "_CHUNK_BYTES", {"cpu": 7 * 240 * 8})


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
@pytest.mark.parametrize("count", [0, 1, 38])
def test_values_and_gradients(criterion: Criterion, count: int) -> None:
    bins = criterion.bins
    logits = (4 * torch.randn(count, len(bins), dtype=torch.float64)).requires_grad_()
    target = (bins.last + 10) * torch.rand(count, dtype=torch.float64) - 5
    shares = torch.rand(2, count, dtype=torch.float64)
    got = row_terms(logits, target, *shares, criterion)
    distances, divergences = as_it_reads(logits, target, criterion)
    torch.testing.assert_close(got.distances, distances)
    torch.testing.assert_close(got.divergences, divergences)
    weighted = shares[0] * distances + shares[1] * divergences
    torch.testing.assert_close(got.weighted, weighted)
    torch.testing.assert_close(got.total, weighted.sum())
    pull = torch.randn(count, dtype=torch.float64)
    for mine, its in (
        (got.total, weighted.sum()),
        (3 * got.total, 3 * weighted.sum()),
        ((pull * got.weighted).sum(), (pull * weighted).sum()),
        ((pull * got.weighted).sum() + got.total, (pull * weighted).sum() + weighted.sum()),
    ):
        gradients = [
            torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (mine, its)
        ]
        torch.testing.assert_close(*gradients)


def test_the_terms_have_no_gradient_of_their_own() -> None:
    logits = torch.randn(3, 240, requires_grad=True)
    terms = ExpectationLDLLoss(MONTHS, 15.0).terms(logits, torch.tensor([5.0, 80.0, torch.nan]))
    assert [term.requires_grad for term in terms] == [False, False, True]


def test_derivatives_across_chunks() -> None:
    bins = Bins(1, 4)
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0.2, 3.3, torch.nan, 2.0, 4.0], dtype=torch.float64)
    fused._CHUNK_BYTES["cpu"] = 2 * 4 * 8

    def loss(logits: Tensor) -> Tensor:
        return expectation_ldl_loss(logits, target, bins, 1.3, distance="l2")

    assert gradcheck(loss, logits)
    assert gradgradcheck(loss, logits)


def test_the_target_can_have_a_gradient() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1.2, 3.3, 4.4], dtype=torch.float64, requires_grad=True)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return expectation_ldl_loss(logits, target, Bins(1, 5), 1.3, distance="l2")

    assert gradcheck(loss, (logits, target))


def test_a_graph_can_be_walked_twice() -> None:
    logits = torch.randn(9, 240, requires_grad=True)
    loss = expectation_ldl_loss(logits, torch.linspace(1, 240, 9), MONTHS, 15.0)
    first, second = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_gradients_of_each_sample_by_vmap() -> None:
    logits = torch.randn(9, 240, dtype=torch.float64)
    target = torch.linspace(1, 240, 9, dtype=torch.float64)
    criterion = ExpectationLDLLoss(MONTHS, 15.0)

    def one(logits: Tensor, target: Tensor) -> Tensor:
        return criterion(logits[None], target[None])

    each = torch.func.vmap(torch.func.grad(one))(logits, target)
    together = torch.func.grad(lambda logits: 9 * criterion(logits, target))(logits)
    torch.testing.assert_close(each, together)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_have_gradients_of_their_own_dtype(dtype: torch.dtype) -> None:
    logits = torch.randn(38, 240).to(dtype).requires_grad_()
    target = torch.linspace(1, 240, 38)
    (got,) = torch.autograd.grad(expectation_ldl_loss(logits, target, MONTHS, 15.0), logits)
    full = logits.detach().float().requires_grad_()
    (want,) = torch.autograd.grad(expectation_ldl_loss(full, target, MONTHS, 15.0), full)
    assert got.dtype == dtype
    torch.testing.assert_close(got, want.to(dtype))


def test_logits_that_are_not_contiguous() -> None:
    logits = torch.randn(240, 38, dtype=torch.float64).T.requires_grad_()
    target = torch.linspace(1, 240, 38, dtype=torch.float64)
    (got,) = torch.autograd.grad(expectation_ldl_loss(logits, target, MONTHS, 15.0), logits)
    copied = logits.detach().contiguous().requires_grad_()
    (want,) = torch.autograd.grad(expectation_ldl_loss(copied, target, MONTHS, 15.0), copied)
    torch.testing.assert_close(got, want)


def test_only_the_gradient_is_kept() -> None:
    """What the graph holds on to between the passes, besides the logits themselves."""
    logits = torch.randn(500, 240, requires_grad=True)
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() != logits.data_ptr():
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        expectation_ldl_loss(logits, torch.linspace(1, 240, 500), MONTHS, 15.0)
    assert 1 <= sum(tensor.numel() for tensor in kept) / logits.numel() < 1.1


def test_without_gradient_nothing_is_kept() -> None:
    logits = torch.randn(500, 240, requires_grad=True)
    with torch.no_grad():
        loss = expectation_ldl_loss(logits, torch.linspace(1, 240, 500), MONTHS, 15.0)
    assert not loss.requires_grad


def test_far_and_narrow_labels_in_float32() -> None:
    """As in float64: labels of targets far outside, and of sigmas of a fraction of a bin."""
    logits = torch.randn(6, 240)
    target = torch.tensor([-1e6, -50.0, 1.0, 120.37, 300.0, 1e6])
    for sigma in (0.01, 0.1, 1.0, 15.0):
        got = ExpectationLDLLoss(MONTHS, sigma).terms(logits, target)
        want = ExpectationLDLLoss(MONTHS, sigma).terms(logits.double(), target.double())
        for mine, its in zip(got, want, strict=True):
            torch.testing.assert_close(mine, its.float(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [2.0**16, 2.0**-10])
def test_scaled_losses_of_half_precision_logits(dtype: torch.dtype, scale: float) -> None:
    """As a gradient scaler does it: scaled first, and only then made half."""
    logits, target = torch.randn(64, 240).to(dtype).requires_grad_(), torch.linspace(1, 240, 64)
    full = logits.detach().float().requires_grad_()
    for reduction in ("mean", "none"):
        gradients = []
        for each in (logits, full):
            loss = expectation_ldl_loss(each, target, MONTHS, 15.0, reduction=reduction)
            gradients += [torch.autograd.grad((scale / 64 * loss).sum(), each)[0]]
        assert gradients[0].dtype == dtype
        torch.testing.assert_close(gradients[0], gradients[1].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [0.5, 3.0, 40.0])
def test_the_reverse_is_exact_however_far_apart(sigma: float, dtype: torch.dtype) -> None:
    """Where labels have underflown, their logs still say how unlikely a prediction is."""
    target = torch.tensor([20.0, 120.5, 239.0], dtype=dtype)
    logits = torch.randn(3, 240, dtype=dtype)
    logits[:, 200:] = -torch.inf
    logits.requires_grad_()
    exact = logits.detach().double().requires_grad_()
    logs = -((MONTHS.centers.double() - target[:, None]) / sigma).square() / 2
    logs = logs - logs.logsumexp(-1, keepdim=True)
    log_probs = exact.log_softmax(-1)
    gaps = torch.where(log_probs > -torch.inf, log_probs - logs, 0)
    known = (log_probs.exp() * gaps).sum(-1)
    criterion = LabelDivergenceLoss(MONTHS, sigma, reverse=True, reduction="none")
    divergences = criterion(logits, target)
    torch.testing.assert_close(divergences.double(), known, rtol=1e-5, atol=1e-5)
    mine, its = (
        torch.autograd.grad(loss.sum(), of)[0]
        for loss, of in ((divergences, logits), (known, exact))
    )
    torch.testing.assert_close(mine.double(), its, rtol=1e-4, atol=1e-4)


def test_large_centers_and_narrow_labels_in_float32() -> None:
    bins = Bins(10_000, 10_100)
    logits, target = torch.randn(6, 101), 10_000 + 100 * torch.rand(6)
    criterion = LabelDivergenceLoss(bins, 0.5)
    exact = criterion(logits.double(), target.double())
    torch.testing.assert_close(criterion(logits, target).double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch itself
@pytest.mark.parametrize("criterion", CRITERIA[:6] + CRITERIA[-6:], ids=str)
def test_derivatives_by_torch_func(criterion: Criterion) -> None:
    bins = criterion.bins
    logits = torch.randn(3, len(bins), dtype=torch.float64)
    target = torch.linspace(bins.first, bins.last, 3, dtype=torch.float64)
    shares = torch.rand(2, 3, dtype=torch.float64)

    def mine(logits: Tensor) -> Tensor:
        return row_terms(logits, target, *shares, criterion).total

    def as_read(logits: Tensor) -> Tensor:
        distances, divergences = as_it_reads(logits, target, criterion)
        return (shares[0] * distances + shares[1] * divergences).sum()

    known = torch.autograd.functional.jacobian(as_read, logits)
    torch.testing.assert_close(torch.func.jacrev(mine)(logits), known)
    _, pull = torch.func.vjp(mine, logits)
    torch.testing.assert_close(pull(torch.tensor(2.0, dtype=torch.float64))[0], 2 * known)
    if len(bins) < 10:
        expected = torch.autograd.functional.hessian(as_read, logits)
        for derive in (torch.func.jacrev, torch.func.jacfwd):
            curved = derive(torch.func.jacrev(mine))(logits)
            torch.testing.assert_close(curved, expected)
    _, slope = torch.func.jvp(mine, (logits,), (torch.ones_like(logits).cumsum(-1),))
    torch.testing.assert_close(slope, (known * torch.ones_like(logits).cumsum(-1)).sum())


def test_many_batches_by_vmap() -> None:
    """Batches of logits, of targets with the same logits, and of both, in and out of chunks."""
    logits = torch.randn(4, 9, 240, dtype=torch.float64)
    target = 240 * torch.rand(4, 9, dtype=torch.float64)
    loss = ExpectationLDLLoss(MONTHS, 15.0)
    assert torch.func.vmap(loss)(logits[:, :0], target[:, :0]).tolist() == [0, 0, 0, 0]
    for in_dims, given in (
        ((0, 0), (logits, target)),
        ((None, 0), (logits[0], target)),
        ((0, None), (logits, target[0])),
        ((1, 1), (logits.movedim(0, 1), target.movedim(0, 1))),
    ):
        each = torch.func.vmap(loss, in_dims=in_dims)(*given)
        known = [
            loss(
                given[0].select(in_dims[0], i) if in_dims[0] is not None else given[0],
                given[1].select(in_dims[1], i) if in_dims[1] is not None else given[1],
            )
            for i in range(4)
        ]
        torch.testing.assert_close(each, torch.stack(known))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [1e-30, 1e-6, 3e-5, 1e-3, 0.02])
def test_labels_much_narrower_than_a_bin(sigma: float, dtype: torch.dtype, reverse: bool) -> None:
    """Also where centres are no floats, and midway between two of them."""
    bins = Bins(0, 20, 1 / 12)
    logits = torch.randn(4, 241, dtype=dtype, requires_grad=True)
    target = torch.tensor([19.876, 19.9, 19.95, 19.9583], dtype=dtype)
    criterion = LabelDivergenceLoss(bins, sigma, reverse=reverse, reduction="none")
    kept = Criterion(bins, max(sigma, bins.narrowest / 10), reverse=reverse)
    _, divergences = as_it_reads(logits, target, kept)
    found = criterion(logits, target)
    torch.testing.assert_close(found, divergences, rtol=1e-5, atol=1e-5)
    mine, its = (torch.autograd.grad(each.sum(), logits)[0] for each in (found, divergences))
    torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5)


def test_an_infinite_divergence_without_weight_as_it_reads() -> None:
    logits = torch.randn(3, 240)
    logits[1, 100] = -torch.inf
    logits.requires_grad_()
    target = torch.tensor([20.0, 101.0, 200.0], requires_grad=True)
    shares = torch.tensor([1.0, 0.0, 1.0])
    terms = row_terms(logits, target, shares, shares, Criterion(MONTHS, 15.0))
    assert terms.divergences[1] == torch.inf
    assert terms.weighted[1] == 0
    known = row_terms(logits, target.detach(), shares, shares, Criterion(MONTHS, 15.0)).total
    torch.testing.assert_close(terms.total, known)
    mine, its = (torch.autograd.grad(each, logits)[0] for each in (terms.total, known))
    torch.testing.assert_close(mine, its)
    assert not mine[1].any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_of_many_results_at_once(reduction: str) -> None:
    loss = ExpectationLDLLoss(MONTHS, 15.0, reduction=reduction)
    logits, months = torch.randn(4, 240, requires_grad=True), torch.tensor([6.0, 90, 120, 200])
    total = loss(logits, months)
    many = torch.tensor([1.0, -2.0])
    (batched,) = torch.autograd.grad(total, logits, many, retain_graph=True, is_grads_batched=True)
    (one,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(batched, torch.stack([one, -2 * one]))


@pytest.mark.parametrize("make", [ExpectationLDLLoss, LabelDivergenceLoss])
def test_models_whose_state_is_stacked(make: type) -> None:
    """As torch.func's ensembles of models do, which put batched buffers into the bins."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 240)
            self.loss = make(MONTHS, 15.0)

        def forward(self, features: Tensor, months: Tensor) -> Tensor:
            loss: Tensor = self.loss(self.head(features), months)
            return loss

    nets = [Net() for _ in range(3)]
    features, months = torch.randn(5, 8), 240 * torch.rand(5)
    state = torch.func.stack_module_state(nets)  # type: ignore[arg-type]
    base = copy.deepcopy(nets[0]).to("meta")

    def run(parameters: Any, buffers: Any) -> Any:
        return torch.func.functional_call(base, (parameters, buffers), (features, months))

    losses = torch.func.vmap(run)(*state)
    expected = torch.stack([net(features, months) for net in nets])
    torch.testing.assert_close(losses, expected)


def test_the_precision_of_matrix_products_is_not_that_of_the_loss() -> None:
    years = Bins(1900, 2000)
    target = 1910 + 80 * torch.rand(64)
    logits = -((years.centers - target[:, None]) / 3).square() / 2
    loss = ExpectationLDLLoss(years, 3.0, reduction="none")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        distances = loss.terms(logits, target).distance
    finally:
        torch.set_float32_matmul_precision(before)
    exact = ((logits.double().softmax(-1) @ years.centers.double()) - target.double()).abs()
    torch.testing.assert_close(distances.double(), exact, rtol=0, atol=2e-3)
