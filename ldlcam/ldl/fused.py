"""Distance and divergence of each row, and the gradient of their sum in the same pass.

Written down as it reads, the loss goes over arrays as large as the logits some twenty times, and
keeps six of them until the backward pass. Here rows are taken a few at a time, so that what lies
between stays in the processor's cache; and since a loss is a weighted sum over rows, its gradient
is at hand when its value is: nothing is kept but the gradient itself, and nothing is computed
twice.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldlcam._precision import upcast, without_autocast
from ldlcam.ldl.bins import Bins
from ldlcam.ldl.log_labels import FAR, log_labels, lowest_log, refuse_outside
from ldlcam.ldl.loss_parts import distance_between, distance_slope

# What one step over rows takes in: on the CPU a share of a core's cache, elsewhere enough to keep
# the device busy.
_CHUNK_BYTES = {"cpu": 2**20}
_CHUNK_BYTES_ELSEWHERE = 2**26


class Criterion(NamedTuple):
    """What each row is judged by: a distance, and the divergence from a Gaussian label."""

    bins: Bins
    sigma: float
    ends: str = "renormalize"
    reverse: bool = False
    distance: str = "l1"


class RowTerms(NamedTuple):
    """Sums with weights, and the terms of each row (N,) without."""

    total: Tensor
    """Sum over rows of `weighted`."""
    weighted: Tensor
    """Weight of the distance * distance + weight of the divergence * divergence."""
    distances: Tensor
    divergences: Tensor


def row_terms(
    logits: Tensor,
    target: Tensor,
    of_distance: Tensor,
    of_divergence: Tensor,
    criterion: Criterion,
) -> RowTerms:
    """Distance and divergence of each row, and their weighted sum, which has the gradient.

    Args:
        logits: Logits (N, K), floating.
        target: Values (N,), all finite, float32 or float64 as the results.
        of_distance: Weight (N,) of each row's distance.
        of_divergence: Weight (N,) of each row's divergence.
        criterion: What rows are judged by.

    Returns:
        The terms; `distances` and `divergences` have no gradient of their own.
    """
    if criterion.ends == "error":
        # Once for all rows: it waits for the device.
        refuse_outside(target, criterion.bins)
        criterion = criterion._replace(ends="renormalize")
    others = (target, of_distance, of_divergence)
    # A compiler fuses the rows by itself; and only the logits' gradient is written out below.
    if torch.compiler.is_compiling() or any(other.requires_grad for other in others):
        distances, divergences = as_it_reads(logits, target, criterion)
        weighted = of_distance * distances + of_divergence * divergences
        return RowTerms(weighted.sum(), weighted, distances.detach(), divergences.detach())
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    results = _Fused.apply(logits, *others, criterion, with_gradient)
    return RowTerms(*results[:4])


def as_it_reads(logits: Tensor, target: Tensor, criterion: Criterion) -> tuple[Tensor, Tensor]:
    """Distance and divergence (N,) of each row, differentiable by autograd."""
    bins = criterion.bins
    log_probs = upcast(logits).log_softmax(-1)
    logs, _ = log_labels(target, bins, criterion.sigma, ends=criterion.ends)
    probs = log_probs.exp()
    if criterion.reverse:
        divergences = (probs * (log_probs - logs)).sum(-1)
    else:
        divergences = (logs.exp() * (logs - log_probs)).sum(-1)
    expectations = (probs * bins.centers_as(probs.dtype, probs.device)).sum(-1)
    return distance_between(expectations, target, criterion.distance, bins), divergences


class _Fused(torch.autograd.Function):
    """The same, a few rows at a time, with the gradient of the total."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        logits: Tensor,
        target: Tensor,
        of_distance: Tensor,
        of_divergence: Tensor,
        criterion: Criterion,
        with_gradient: bool,
    ) -> tuple[Tensor, ...]:
        """The row terms, and the gradient (N, K) of their total, or nothing (0, K)."""
        # In full precision, also for logits in half: it is still to be scaled, up or down.
        shape = logits if with_gradient else logits[:0]
        gradient = torch.empty_like(shape, dtype=torch.promote_types(logits.dtype, torch.float32))
        # Room for all results beforehand: small ones that stay, made between large ones that go,
        # would leave the large ones of the next rows no place but a new one.
        distances, divergences = (upcast(logits[:, 0]).clone() for _ in range(2))
        for rows in _chunks(logits):
            given = (logits[rows], target[rows], of_distance[rows], of_divergence[rows])
            distances[rows], divergences[rows], pull = _judge(*given, criterion, with_gradient)
            if pull is not None:
                gradient[rows] = pull
        weighted = of_distance * distances + of_divergence * divergences
        return weighted.sum(), weighted, distances, divergences, gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the gradient, and what is needed to differentiate it again."""
        *tensors, ctx.criterion, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*tensors, output[4])

    @staticmethod
    def backward(
        ctx: Any, of_total: Tensor | None, of_weighted: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        """The gradient that is there already, times that of the results."""
        logits, target, of_distance, of_divergence, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():
            # It is to be differentiated again.
            distances, divergences = as_it_reads(logits, target, ctx.criterion)
            weighted = of_distance * distances + of_divergence * divergences
            return _differentiable(weighted, logits, of_total, of_weighted), *_NONE
        if of_weighted is not None:
            scale = of_weighted if of_total is None else of_total + of_weighted
            return (gradient * scale[:, None]).to(logits.dtype), *_NONE
        if of_total is None:
            return None, *_NONE
        # On other devices than the CPU, looking at a number waits for it.
        if logits.device.type == "cpu" and bool(of_total == 1):
            return gradient.to(logits.dtype), *_NONE
        return (gradient * of_total).to(logits.dtype), *_NONE


# The other arguments have no gradient here.
_NONE = (None,) * 5


def _differentiable(
    weighted: Tensor, logits: Tensor, of_total: Tensor | None, of_weighted: Tensor | None
) -> Tensor:
    """Gradient of the logits by autograd, itself differentiable."""
    total = logits.new_zeros((), dtype=weighted.dtype)
    if of_total is not None:
        total = total + of_total * weighted.sum()
    if of_weighted is not None:
        total = total + (of_weighted * weighted).sum()
    return torch.autograd.grad(total, logits, create_graph=True)[0]


def _judge(
    logits: Tensor,
    target: Tensor,
    of_distance: Tensor,
    of_divergence: Tensor,
    criterion: Criterion,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Distances and divergences (n,) of some rows, and the gradient (n, K) of their sum."""
    logits = upcast(logits)
    centers = criterion.bins.centers_as(logits.dtype, logits.device)
    probs = logits.softmax(-1)
    # The sum of the exponentials, without computing them once more.
    log_sums = logits.amax(-1) - probs.amax(-1).log()
    with without_autocast(logits.device.type):
        expectations = probs.mv(centers)
    labels, logs, log_total = _labels(target, criterion)
    gaps = logs - logits
    if criterion.reverse:
        divergences = log_total - log_sums - (probs * gaps).sum(-1)
    else:
        divergences = log_sums - log_total + (labels * gaps).sum(-1)
    distances = distance_between(expectations, target, criterion.distance, criterion.bins)
    if not with_gradient:
        return distances, divergences, None

    slope = of_distance * distance_slope(expectations - target, criterion.distance, criterion.bins)
    if criterion.reverse:
        level = of_divergence * (log_total - log_sums - divergences) - slope * expectations
        pull = torch.addcmul(level[:, None], centers, slope[:, None])
        pull = pull.sub_(gaps.mul_(of_divergence[:, None])).mul_(probs)
    else:
        level = of_divergence - slope * expectations
        pull = torch.addcmul(level[:, None], centers, slope[:, None])
        pull = pull.mul_(probs).sub_(labels.mul_(of_divergence[:, None]))
    return distances, divergences, pull


def _labels(target: Tensor, criterion: Criterion) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (n, K), and logs (n, K) that are theirs but for a number (n,) to take away."""
    bins, sigma = criterion.bins, criterion.sigma
    if criterion.ends != "renormalize":
        logs, _ = log_labels(target, bins, sigma, ends=criterion.ends)
        return logs.exp(), logs, torch.zeros_like(target)
    # The usual ones once more, in as few steps as will do.
    centers = bins.centers_as(target.dtype, target.device)
    target = target.clamp(bins.first - FAR * sigma, bins.last + FAR * sigma)
    scale = 1 / (math.sqrt(2) * sigma)
    distances = centers * scale - (target * scale)[:, None]
    logs = torch.addcmul(target.new_zeros(()), distances, distances, value=-1)
    if not bins.uniform:
        logs = logs + bins.edges_as(target.dtype, target.device).diff().log()
    highest = logs.amax(-1)
    logs = torch.maximum(logs, (highest + lowest_log(logs))[:, None])
    labels = logs.softmax(-1)
    return labels, logs, highest - labels.amax(-1).log()


def _chunks(logits: Tensor) -> Iterator[slice]:
    """Slices over the rows; one, empty, if there is none."""
    count, bins = logits.shape
    room = _CHUNK_BYTES.get(logits.device.type, _CHUNK_BYTES_ELSEWHERE)
    # Arithmetic is in four bytes a number, whatever the logits are in, or eight.
    step = max(room // (max(4, logits.element_size()) * bins), 1)
    for start in range(0, max(count, 1), step):
        yield slice(start, start + step)
