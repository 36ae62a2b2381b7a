"""Rows taken a few at a time, with a backward pass of their own, are the loss as it reads."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from ldlcam.ldl import Bins, ExpectationLDLLoss, expectation_ldl_loss, fused
from ldlcam.ldl.fused import Criterion, as_it_reads, row_terms
from ldlcam.ldl.log_labels import ENDS
from ldlcam.ldl.loss_parts import DISTANCES

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
