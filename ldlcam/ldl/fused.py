"""Distance and divergence of each row, and the gradient of their sum in the same pass.

Written down as it reads, the loss goes over arrays as large as the logits some twenty times, and
keeps six of them until the backward pass. Here rows are taken a few at a time, so that what lies
between stays in the processor's cache; and since a loss is a weighted sum over rows, its gradient
is at hand when its value is: besides the logits, nothing is kept but the gradient itself, and
nothing is computed twice.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ldlcam._precision import upcast, without_autocast
from ldlcam.ldl.log_labels import refuse_outside
from ldlcam.ldl.loss_parts import Criterion, distance_between, distance_slope, weighed
from ldlcam.ldl.row_labels import RowLabels, label_logs

# What one step over rows takes in: on the CPU a share of the cores' caches, elsewhere enough to
# keep the device busy.
_CHUNK_BYTES = {"cpu": 1280 * 1024}
_CHUNK_BYTES_ELSEWHERE = 2**26

# Finite, also when multiplied by a weight.
_HUGE = 1e30


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
    sigmas: Tensor | None = None,
    given: Tensor | None = None,
) -> RowTerms:
    """Distance and divergence of each row, and their weighted sum, which has the gradient.

    Args:
        logits: Logits (N, K), floating.
        target: Values (N,), all finite, float32 or float64 as the results.
        of_distance: Weight (N,) of each row's distance.
        of_divergence: Weight (N,) of each row's divergence.
        criterion: What rows are judged by.
        sigmas: Standard deviations (N,) of rows' own labels, instead of the criterion's.
        given: Labels (N, K), each row summing to 1, instead of Gaussian ones.

    Returns:
        The terms; `distances` and `divergences` have no gradient of their own.
    """
    if criterion.ends == "error":
        # Once for all rows: it waits for the device.
        refuse_outside(target, criterion.bins)
        criterion = criterion._replace(ends="renormalize")
    others = (target, of_distance, of_divergence, sigmas, given)
    learned = any(other is not None and other.requires_grad for other in others)
    # A compiler fuses the rows by itself; and only the logits' gradient is written out below, for
    # reverse mode.
    if torch.compiler.is_compiling() or learned or _in_forward_mode():
        distances, divergences = as_it_reads(logits, target, criterion, sigmas, given)
        weighted = weighed(distances, of_distance) + weighed(divergences, of_divergence)
        return RowTerms(weighted.sum(), weighted, distances.detach(), divergences.detach())
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    results = _Fused.apply(logits, *others, criterion, with_gradient)
    return RowTerms(*results[:4])


def _in_forward_mode() -> bool:
    """Whether derivatives are being taken in forward mode, of whatever argument."""
    return getattr(forward_ad, "_current_level", -1) >= 0


def as_it_reads(
    logits: Tensor,
    target: Tensor,
    criterion: Criterion,
    sigmas: Tensor | None = None,
    given: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Distance and divergence (N,) of each row, differentiable by autograd."""
    logs = label_logs(target, criterion, sigmas, given)
    probs, expectations, gaps, labels = _terms_as_they_read(logits, logs, criterion)
    if given is not None and not criterion.reverse:
        # What is left out adds nothing, also where it is ruled out.
        gaps = gaps.masked_fill(given == 0, 0)
    distances = distance_between(expectations, target, criterion.distance, criterion.bins)
    divergences = (probs * gaps).sum(-1) if criterion.reverse else -(labels * gaps).sum(-1)
    return distances, divergences


def _gradient_as_it_reads(
    criterion: Criterion,
    logits: Tensor,
    target: Tensor,
    of_distance: Tensor,
    of_divergence: Tensor,
    sigmas: Tensor | None,
    given: Tensor | None,
) -> Tensor:
    """Gradient (N, K) of the terms' weighted sum, itself differentiable by autograd."""
    logs = label_logs(target, criterion, sigmas, given)
    probs, expectations, gaps, labels = _terms_as_they_read(logits, logs, criterion)
    centers = criterion.bins.centers_as(probs.dtype, probs.device)
    slope = of_distance * distance_slope(expectations - target, criterion.distance, criterion.bins)
    of_distances = slope[:, None] * probs * (centers - expectations[:, None])
    if criterion.reverse:
        pull = probs * (gaps - (probs * gaps).sum(-1, keepdim=True))
    else:
        pull = probs - labels
    return of_distances + of_divergence[:, None] * pull


def _terms_as_they_read(
    logits: Tensor, logs: Tensor, criterion: Criterion
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Probabilities, expectations (N,), log-probabilities less the label's, and labels."""
    log_probs = upcast(logits).log_softmax(-1)
    probs = log_probs.exp()
    gaps = log_probs - logs
    if criterion.reverse:
        # What is not predicted adds nothing, however unlikely it is said to be.
        gaps = torch.where(probs > 0, gaps, 0)
    expectations = (probs * criterion.bins.centers_as(probs.dtype, probs.device)).sum(-1)
    return probs, expectations, gaps, logs.exp()


class _Fused(torch.autograd.Function):
    """The same, a few rows at a time, with the gradient of the total."""

    @staticmethod
    def forward(
        logits: Tensor,
        target: Tensor,
        of_distance: Tensor,
        of_divergence: Tensor,
        sigmas: Tensor | None,
        given: Tensor | None,
        criterion: Criterion,
        with_gradient: bool,
    ) -> tuple[Tensor, ...]:
        """The row terms, and the gradient (N, K) of their total, or nothing (0, K)."""
        # In full precision, also for logits in half: it is still to be scaled, up or down.
        gradient = logits.new_empty(
            (len(logits) if with_gradient else 0, logits.shape[1]),
            dtype=torch.promote_types(logits.dtype, torch.float32),
        )
        with without_autocast(logits.device.type):
            label = RowLabels.of(target, criterion, sigmas, given)
            rows = _Rows(logits, target, of_distance, of_divergence, label)
            sums = _go_over_rows(rows, criterion, gradient)
        expectations, divergences = _terms(sums, criterion)
        distances = distance_between(expectations, target, criterion.distance, criterion.bins)
        weighted = weighed(distances, of_distance) + weighed(divergences, of_divergence)
        return weighted.sum(), weighted, distances, divergences, gradient

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        logits: Tensor,
        target: Tensor,
        of_distance: Tensor,
        of_divergence: Tensor,
        sigmas: Tensor | None,
        given: Tensor | None,
        criterion: Criterion,
        with_gradient: bool,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Many batches are one: no row depends on another."""
        many = info.batch_size

        def as_one(each: Tensor | None, dim: int | None) -> Tensor | None:
            if each is None:
                return None
            each = each.expand(many, *each.shape) if dim is None else each.movedim(dim, 0)
            return each.flatten(0, 1)

        arrays = (logits, target, of_distance, of_divergence, sigmas, given)
        flat = [as_one(*each) for each in zip(arrays, in_dims, strict=False)]
        _, *rows, gradient = _Fused.apply(*flat, criterion, with_gradient)
        rows = [each.reshape(many, len(each) // many) for each in rows]
        gradient = gradient.reshape(many, len(gradient) // many, gradient.shape[1])
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
        logits, *others, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():
            # It is to be differentiated again.
            gradient = _gradient_as_it_reads(ctx.criterion, logits, *others)
        if of_weighted is not None:
            scale = of_weighted if of_total is None else of_total + of_weighted
            return (gradient * scale[:, None]).to(logits.dtype), *_NONE
        if of_total is None:
            return None, *_NONE
        if not torch.is_grad_enabled() and _is_one(of_total):
            return gradient.to(logits.dtype), *_NONE
        return (gradient * of_total).to(logits.dtype), *_NONE


def _is_one(number: Tensor) -> bool:
    """Whether it is known to be 1 without waiting for it, as on other devices than the CPU."""
    if number.device.type != "cpu":
        return False
    try:
        return bool(number == 1)
    except RuntimeError:
        return False  # many at once, under vmap, or one without a value


# The other arguments have no gradient here.
_NONE = (None,) * 7


def _go_over_rows(rows: "_Rows", criterion: Criterion, gradient: Tensor) -> "_Sums":
    """What rows add up to; and write their gradient (N, K), unless that is empty (0, K)."""
    steps = _steps(rows.logits)
    sums = gradient.new_empty(len(_Sums._fields), len(rows.logits))
    centers = criterion.bins.centers_as(gradient.dtype, gradient.device)
    for some, own, (pull, room) in zip(
        rows.split(steps),
        sums.split_with_sizes(steps, 1),
        _rooms(gradient, steps, len(centers)),
        strict=True,
    ):
        some.label.write_logs(criterion, centers, room)
        _add_up(some, criterion, centers, pull, room, own)
        if len(gradient):
            _write_gradient(some, criterion, centers, pull, room, _Sums(*own))
    return _Sums(*sums)


class _Sums(NamedTuple):
    """What rows add up to, each (N,): of these, the terms are made. Nothing is (N, K) but once."""

    highest: Tensor
    """The highest logit."""
    exps: Tensor
    """Sum of the exponentials of logits less the highest."""
    moments: Tensor
    """Sum of these times the centres."""
    labels: Tensor
    """Sum of the labels."""
    gaps: Tensor
    """Sum of log label less logit, weighted by the labels; in reverse, by the exponentials."""


def _terms(sums: _Sums, criterion: Criterion) -> tuple[Tensor, Tensor]:
    """Expectations and divergences (N,)."""
    log_ratios = sums.highest + sums.exps.log() - sums.labels.log()
    if criterion.reverse:
        divergences = -log_ratios - sums.gaps / sums.exps
    else:
        divergences = sums.gaps / sums.labels + log_ratios
    return sums.moments / sums.exps, divergences


class _Rows(NamedTuple):
    """What is known of rows beforehand."""

    logits: Tensor
    """(n, K), the next three (n,)."""
    target: Tensor
    of_distance: Tensor
    of_divergence: Tensor
    label: RowLabels

    def split(self, steps: list[int]) -> Iterator["_Rows"]:
        """A few rows at a time, in full precision."""
        *numbers, label = self
        parts = (each.split_with_sizes(steps) for each in numbers)
        for logits, *others in zip(*parts, label.split(steps), strict=True):
            yield _Rows(upcast(logits), *others)


def _add_up(
    rows: _Rows,
    criterion: Criterion,
    centers: Tensor,
    pull: Tensor,
    room: Tensor,
    into: Tensor,
) -> None:
    """Write the sums (5, n) of rows, from the logs (n, K) of their labels in `room`.

    Exponentials are never divided by their sums: whatever is made of them is, which is (n,).
    Afterwards `room` has those of the logits, `pull` the labels, or in reverse the gaps.
    """
    sums = _Sums(*into)
    logits, labels = rows.logits, torch.exp(room, out=pull)
    torch.sum(labels, -1, out=sums.labels)
    if criterion.reverse:
        # What is not predicted adds nothing, however unlikely it is said to be: no 0 * inf.
        torch.sub(room, logits, out=pull).clamp_(max=_HUGE)
    else:
        gaps = room.sub_(logits)
        if rows.label.given is not None:
            # What is left out adds nothing, also where it is ruled out.
            gaps.masked_fill_(rows.label.given == 0, 0)
        torch.sum(gaps.mul_(labels), -1, out=sums.gaps)
    torch.amax(logits, -1, out=sums.highest)
    exps = torch.sub(logits, sums.highest[:, None], out=room).exp_()
    torch.sum(exps, -1, out=sums.exps)
    # Not with those of `exps` in one product of matrices, whose precision is the user's to lower.
    torch.mv(exps, centers, out=sums.moments)
    if criterion.reverse:
        torch.sum(exps * pull, -1, out=sums.gaps)


def _write_gradient(
    rows: _Rows,
    criterion: Criterion,
    centers: Tensor,
    pull: Tensor,
    exps: Tensor,
    sums: _Sums,
) -> None:
    """Write the gradient of the terms' weighted sum into `pull`, from what `_add_up` left."""
    expectations, of_divergence = sums.moments / sums.exps, rows.of_divergence
    errors = expectations - rows.target
    slope = distance_slope(errors, criterion.distance, criterion.bins) * rows.of_distance
    of_centers = (slope / sums.exps)[:, None]
    if criterion.reverse:
        level = (of_divergence * sums.gaps - slope * sums.moments) / sums.exps**2
        pull.mul_((-of_divergence / sums.exps)[:, None]).add_(level[:, None])
        pull.addcmul_(centers, of_centers).mul_(exps)
    else:
        level = (of_divergence - slope * expectations) / sums.exps
        pull.mul_((-of_divergence / sums.labels)[:, None])
        pull.addcmul_(exps, level[:, None]).addcmul_(exps.mul_(centers), of_centers)


def _steps(logits: Tensor) -> list[int]:
    """How many rows are taken at a time: as many as stay free, until a few are left."""
    # Arithmetic is in four bytes a number, whatever the logits are in, or eight.
    row = max(4, logits.element_size()) * logits.shape[1]
    most = max(_CHUNK_BYTES.get(logits.device.type, _CHUNK_BYTES_ELSEWHERE) // row, 1)
    few = max(most * 3 // 8, 1)
    left, steps = len(logits), []
    while left:
        steps.append(left if left <= few else min(most, left // 2))
        left -= steps[-1]
    return steps


def _rooms(gradient: Tensor, steps: list[int], bins: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Two arrays (n, K) for each step: its rows of the gradient, and room to work in.

    Until the last step, the room is the last rows of the gradient, which are not written yet.
    Without a gradient, both are room.
    """
    if not len(gradient):
        both = gradient.new_empty(2, max(steps, default=0), bins)
        for step in steps:
            yield both[0, :step], both[1, :step]
        return
    start = 0
    for step in steps:
        end = start + step
        room = gradient[-step:] if end < len(gradient) else gradient.new_empty(step, bins)
        yield gradient[start:end], room
        start = end
