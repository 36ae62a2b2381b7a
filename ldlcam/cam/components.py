"""Connected components of grid graphs, batched and on the device."""

import torch
from torch import Tensor

# A grid graph joins a node to its right, lower, lower right and lower left neighbour. Each kind of
# join has a mask over its first nodes; the slices say where the two ends lie, as (rows, columns).
_ALL, _HEAD, _TAIL = slice(None), slice(None, -1), slice(1, None)
_ENDS = (
    ((_ALL, _HEAD), (_ALL, _TAIL)),
    ((_HEAD, _ALL), (_TAIL, _ALL)),
    ((_HEAD, _HEAD), (_TAIL, _TAIL)),
    ((_HEAD, _TAIL), (_TAIL, _HEAD)),
)


def label_components(right: Tensor, down: Tensor, main: Tensor, anti: Tensor) -> Tensor:
    """The smallest node of each node's component, counting nodes row by row.

    Labels fall to the smallest label next to them and then to their label's own label (pointer
    jumping), until none changes: then joined nodes agree, so the answer is exact for any shape of
    component. A dozen rounds are usual. Whether one more is needed is asked of the device each
    round; on `meta` there is one round. Compiled and exported, the rounds are a loop of the graph.

    Args:
        right: Joins of (r, c) and (r, c + 1), (N, R, C - 1), bool.
        down: Joins of (r, c) and (r + 1, c), (N, R - 1, C), bool.
        main: Joins of (r, c) and (r + 1, c + 1), (N, R - 1, C - 1), bool.
        anti: Joins of (r, c + 1) and (r + 1, c), (N, R - 1, C - 1), bool.

    Returns:
        Labels, (N, R, C), int64: `row * C + column` of the component's first node.

    References:
        Zhang, Azad and Buluc, "Parallel algorithms for finding connected components using linear
        algebra", JPDC 2020 (hooking both a node and its label).
    """
    count, rows, columns = right.shape[0], right.shape[1], down.shape[2]
    nodes = torch.arange(rows * columns, device=right.device)
    labels = nodes.expand(count, -1)
    joins = (right, down, main, anti)

    def lower(labels: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        lowest = _lowest_nearby(labels.view(count, rows, columns), joins).flatten(1)
        hooked = lowest.scatter_reduce(1, labels, lowest, "amin")
        jumped = hooked.gather(1, hooked)
        jumped = jumped.gather(1, jumped)
        return jumped, (jumped != labels).any()

    def unfinished(_: Tensor, changed: Tensor) -> Tensor:
        return changed.clone()  # a loop of the graph may not return what it was given

    state = lower(labels, labels)
    if torch.compiler.is_compiling():
        # Not public yet, so not to be relied on where it is not needed.
        from torch._higher_order_ops import while_loop

        state = while_loop(unfinished, lower, state)  # type: ignore[no-untyped-call]
    else:
        while not state[1].is_meta and state[1]:
            state = lower(*state)
    return state[0].view(count, rows, columns)


def label_mask(mask: Tensor) -> Tensor:
    """Labels of the 8-connected components of masks, (N, H, W) bool; False pixels stay alone."""
    right, down, main, anti = (
        mask[:, first[0], first[1]] & mask[:, second[0], second[1]] for first, second in _ENDS
    )
    return label_components(right, down, main, anti)


def _lowest_nearby(labels: Tensor, joins: tuple[Tensor, ...]) -> Tensor:
    lowest = labels.clone()
    for join, ends in zip(joins, _ENDS, strict=True):
        for near, far in (ends, ends[::-1]):
            here = lowest[:, near[0], near[1]]
            there = labels[:, far[0], far[1]]
            here.copy_(torch.where(join, torch.minimum(here, there), here))
    return lowest
