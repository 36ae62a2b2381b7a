"""The label of each row, by its logs: a Gaussian of one width, one of its own, or one given."""

from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor

from ldlcam.ldl.log_labels import log_labels, lowest_log, spread_of, within_reach
from ldlcam.ldl.loss_parts import Criterion, mean_step

# What a label that was given leaves out counts as this much, for its log to be finite.
_LEAST = 1e-26


def label_logs(
    target: Tensor, criterion: Criterion, sigmas: Tensor | None, given: Tensor | None
) -> Tensor:
    """Logs of the labels (N, K), differentiable by autograd.

    Args:
        target: Values (N,), all finite.
        criterion: What rows are judged by.
        sigmas: Standard deviation (N,) of each row's own label.
        given: Label distributions (N, K), each row summing to 1.
    """
    if given is not None:
        return given.clamp(min=_LEAST).log()
    sigma, ends, floor = _sigma(criterion, sigmas), criterion.ends, not criterion.reverse
    return log_labels(target, criterion.bins, sigma, ends=ends, floor=floor)[0]


def _sigma(criterion: Criterion, sigmas: Tensor | None) -> float | Tensor:
    sigma = criterion.sigma if sigmas is None else sigmas
    assert sigma is not None, "a label has a sigma, or is given"
    return sigma


class RowLabels(NamedTuple):
    """What labels are made of, a few rows at a time: no array of it is (N, K) but what is given."""

    held: Tensor
    """The target (n,), held within reach of the bins."""
    peaks: Tensor | None
    """For usual labels, minus the log (n,) of the density at the bin nearest to the target."""
    sigmas: Tensor | None
    """Standard deviations (n,); None for the usual labels: all alike, in even bins."""
    given: Tensor | None
    """Labels (n, K) that were given."""

    @classmethod
    def of(
        cls, target: Tensor, criterion: Criterion, sigmas: Tensor | None, given: Tensor | None
    ) -> "RowLabels":
        """Those of `label_logs`' arguments."""
        if given is not None:
            return cls(target, None, None, given)
        bins, step, sigma = criterion.bins, mean_step(criterion.bins), _sigma(criterion, sigmas)
        spread = spread_of(sigma, target, bins)
        held = within_reach(target, bins, spread)
        if isinstance(sigma, Tensor) or not bins.uniform:
            return cls(held, None, spread, None)
        nearest = ((held - bins.first) / step).round().clamp(0, len(bins) - 1)
        peaks = (bins.first + step * nearest - held).square() / (2 * sigma**2)
        return cls(held, peaks, None, None)

    def split(self, steps: list[int]) -> Iterator["RowLabels"]:
        """A few rows at a time."""
        parts = (
            repeat(None, len(steps)) if each is None else each.split_with_sizes(steps)
            for each in self
        )
        return (RowLabels(*some) for some in zip(*parts, strict=True))

    def write_logs(self, criterion: Criterion, centers: Tensor, logs: Tensor) -> None:
        """Write logs (n, K) of the labels, but for a number (n,); the highest is about 0."""
        if self.given is not None:
            torch.clamp(self.given, min=_LEAST, out=logs).log_()
            return
        if criterion.ends != "renormalize":
            logs.copy_(label_logs(self.held, criterion, self.sigmas, None))
            return
        torch.sub(centers, self.held[:, None], out=logs)
        if self.sigmas is not None:
            logs.div_(self.sigmas[:, None]).square_().div_(-2)
            if not criterion.bins.uniform:
                logs.add_(criterion.bins.edges_as(logs.dtype, logs.device).diff().log())
            logs.sub_(logs.amax(-1, keepdim=True))
        elif self.peaks is not None and criterion.sigma is not None:  # in as few steps as will do
            scale = -1 / (2 * criterion.sigma**2)
            torch.addcmul(self.peaks[:, None], logs, logs, value=scale, out=logs)
        if not criterion.reverse:
            logs.clamp_(min=lowest_log(logs))
