"""Distance and divergence of each row, and the gradient of their sum in the same pass.

Written down as it reads, the loss goes over arrays as large as the logits some twenty times, and
keeps six of them until the backward pass. Here rows are taken a few at a time, so that what lies
between stays in the processor's cache; and since a loss is a weighted sum over rows, its gradient
is at hand when its value is: besides the logits, nothing is kept but the gradient itself, and
nothing is computed twice.
"""

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

# Finite, also when multiplied by a weight.
_HUGE = 1e30


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
    probs, expectations, gaps, labels = _terms_as_they_read(logits, target, criterion)
    distances = distance_between(expectations, target, criterion.distance, criterion.bins)
    divergences = (probs * gaps).sum(-1) if criterion.reverse else -(labels * gaps).sum(-1)
    return distances, divergences


def _gradient_as_it_reads(
    logits: Tensor,
    target: Tensor,
    of_distance: Tensor,
    of_divergence: Tensor,
    criterion: Criterion,
) -> Tensor:
    """Gradient (N, K) of the terms' weighted sum, itself differentiable by autograd."""
    probs, expectations, gaps, labels = _terms_as_they_read(logits, target, criterion)
    centers = criterion.bins.centers_as(probs.dtype, probs.device)
    slope = of_distance * distance_slope(expectations - target, criterion.distance, criterion.bins)
    of_distances = slope[:, None] * probs * (centers - expectations[:, None])
    if criterion.reverse:
        pull = probs * (gaps - (probs * gaps).sum(-1, keepdim=True))
    else:
        pull = probs - labels
    return of_distances + of_divergence[:, None] * pull


def _terms_as_they_read(
    logits: Tensor, target: Tensor, criterion: Criterion
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Probabilities, expectations (N,), log-probabilities less the label's, and labels."""
    bins, reverse = criterion.bins, criterion.reverse
    log_probs = upcast(logits).log_softmax(-1)
    probs = log_probs.exp()
    logs, _ = log_labels(target, bins, criterion.sigma, ends=criterion.ends, floor=not reverse)
    gaps = log_probs - logs
    if reverse:
        # What is not predicted adds nothing, however unlikely it is said to be.
        gaps = torch.where(probs > 0, gaps, 0)
    expectations = (probs * bins.centers_as(probs.dtype, probs.device)).sum(-1)
    return probs, expectations, gaps, logs.exp()


class _Fused(torch.autograd.Function):
    """The same, a few rows at a time, with the gradient of the total."""

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
        distances, divergences = (upcast(logits[:, 0]).clone() for _ in range(2))
        chunks = _chunks(logits)
        # The same room for every chunk: new memory takes longer to get than to compute with.
        room = gradient.new_empty(chunks[0].stop, logits.shape[1])
        pulls = gradient if with_gradient else torch.empty_like(room)
        for rows in chunks:
            given = (logits[rows], target[rows], of_distance[rows], of_divergence[rows])
            count = len(given[0])
            pull = pulls[rows] if with_gradient else pulls[:count]
            distances[rows], divergences[rows] = _judge(
                *given, criterion, pull, room[:count], with_gradient
            )
        weighted = of_distance * distances + of_divergence * divergences
        return weighted.sum(), weighted, distances, divergences, gradient

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        logits: Tensor,
        target: Tensor,
        of_distance: Tensor,
        of_divergence: Tensor,
        criterion: Criterion,
        with_gradient: bool,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Many batches are one: no row depends on another."""
        many = info.batch_size
        given = [
            (each.expand(many, *each.shape) if dim is None else each.movedim(dim, 0))
            for each, dim in zip(
                (logits, target, of_distance, of_divergence), in_dims, strict=False
            )
        ]
        count, bins = given[0].shape[1:]
        flat = [each.flatten(0, 1) for each in given]
        _, *rows, gradient = _Fused.apply(*flat, criterion, with_gradient)
        rows = [each.reshape(many, count) for each in rows]
        gradient = gradient.reshape(many, count if with_gradient else 0, bins)
        return (rows[0].sum(1), *rows, gradient), (0,) * 5

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
            given = (logits, target, of_distance, of_divergence, ctx.criterion)
            gradient = _gradient_as_it_reads(*given)
        if of_weighted is not None:
            scale = of_weighted if of_total is None else of_total + of_weighted
            return (gradient * scale[:, None]).to(logits.dtype), *_NONE
        if of_total is None:
            return None, *_NONE
        # On other devices than the CPU, looking at a number waits for it.
        if not torch.is_grad_enabled() and logits.device.type == "cpu" and bool(of_total == 1):
            return gradient.to(logits.dtype), *_NONE
        return (gradient * of_total).to(logits.dtype), *_NONE


# The other arguments have no gradient here.
_NONE = (None,) * 5


def _judge(
    logits: Tensor,
    target: Tensor,
    of_distance: Tensor,
    of_divergence: Tensor,
    criterion: Criterion,
    pull: Tensor,
    room: Tensor,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Distances and divergences (n,) of some rows.

    What lies between is written into `pull`, which holds the gradient of the terms' weighted sum in
    the end, and `room`, both (n, K). Exponentials are never divided by their sums: whatever is made
    of them is, which is (n,).
    """
    logits = upcast(logits)
    centers = criterion.bins.centers_as(logits.dtype, logits.device)
    logs = _write_logs(target, criterion, room)
    if criterion.reverse:
        log_total = logs.logsumexp(-1)
        # What is not predicted adds nothing, however unlikely it is said to be: no 0 * inf.
        gaps = torch.sub(logs, logits, out=pull).clamp_(max=_HUGE)
    else:
        labels = torch.exp(logs, out=pull)
        label_sums = labels.sum(-1)
        cross = logs.sub_(logits).mul_(labels).sum(-1) / label_sums

    highest = logits.amax(-1)
    exps = torch.sub(logits, highest[:, None], out=room).exp_()
    sums = exps.sum(-1)
    log_sums = highest + sums.log()
    with without_autocast(logits.device.type):
        expectations = exps.mv(centers) / sums
    distances = distance_between(expectations, target, criterion.distance, criterion.bins)
    slope = of_distance * distance_slope(expectations - target, criterion.distance, criterion.bins)

    if criterion.reverse:
        divergences = log_total - log_sums - (exps * gaps).sum(-1) / sums
        if with_gradient:
            level = of_divergence * (log_total - log_sums - divergences) - slope * expectations
            pull.mul_((-of_divergence / sums)[:, None]).add_((level / sums)[:, None])
            pull.addcmul_(centers, (slope / sums)[:, None]).mul_(exps)
    else:
        divergences = cross + log_sums - label_sums.log()
        if with_gradient:
            level = of_divergence - slope * expectations
            pull.mul_((-of_divergence / label_sums)[:, None])
            pull.addcmul_(exps, (level / sums)[:, None])
            pull.addcmul_(exps.mul_(centers), (slope / sums)[:, None])
    return distances, divergences


def _write_logs(target: Tensor, criterion: Criterion, logs: Tensor) -> Tensor:
    """Write logs (n, K) of the labels, but for a number (n,); the highest is about 0."""
    bins, sigma, floor = criterion.bins, criterion.sigma, not criterion.reverse
    if criterion.ends != "renormalize":
        return logs.copy_(log_labels(target, bins, sigma, ends=criterion.ends, floor=floor)[0])
    # The usual ones once more, in as few steps as will do.
    centers = bins.centers_as(target.dtype, target.device)
    target = target.clamp(bins.first - FAR * sigma, bins.last + FAR * sigma)
    torch.sub(centers, target[:, None], out=logs)
    sharpness = 1 / (2 * sigma**2)
    step = (bins.last - bins.first) / (len(bins) - 1)
    nearest = ((target - bins.first) / step).round().clamp(0, len(bins) - 1)
    least = (bins.first + step * nearest - target).square() * sharpness
    torch.addcmul(least[:, None], logs, logs, value=-sharpness, out=logs)
    if not bins.uniform:
        logs.add_(bins.edges_as(target.dtype, target.device).diff().log())
        logs.sub_(logs.amax(-1, keepdim=True))
    return logs.clamp_(min=lowest_log(logs)) if floor else logs


def _chunks(logits: Tensor) -> list[slice]:
    """Slices over the rows, none longer than the first; one, empty, if there is no row."""
    count, bins = logits.shape
    room = _CHUNK_BYTES.get(logits.device.type, _CHUNK_BYTES_ELSEWHERE)
    # Arithmetic is in four bytes a number, whatever the logits are in, or eight.
    step = max(room // (max(4, logits.element_size()) * bins), 1)
    return [slice(start, min(start + step, count)) for start in range(0, max(count, 1), step)]
