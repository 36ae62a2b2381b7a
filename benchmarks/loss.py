"""ExpectationLDLLoss, forward and backward, beside ways to write it by hand.

Run: python benchmarks/loss.py
"""

from collections.abc import Callable

import torch
from _measure import compare, show, write
from torch import Tensor
from torch.nn import functional as F

from ldlcam import Bins, ExpectationLDLLoss

BATCHES = (4096, 16384)
SIGMA = 15.0
OURS = "ExpectationLDLLoss"

Loss = Callable[[Tensor, Tensor], Tensor]


def naive(centers: Tensor) -> Loss:
    """As one writes it from the formulas: probabilities, then their logarithm."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        probabilities = logits.softmax(-1)
        distance = ((probabilities * centers).sum(-1) - target).abs().mean()
        labels = torch.exp(-((centers - target[:, None]) ** 2) / (2 * SIGMA**2))
        labels = labels / labels.sum(-1, keepdim=True)
        return distance + SIGMA * F.kl_div(probabilities.log(), labels, reduction="batchmean")

    return loss


def in_logarithms(centers: Tensor) -> Loss:
    """As one writes it with care: log-softmax, and the label's logarithm in closed form."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        log_probabilities = logits.log_softmax(-1)
        distance = ((log_probabilities.exp() * centers).sum(-1) - target).abs().mean()
        log_labels = (-((centers - target[:, None]) ** 2) / (2 * SIGMA**2)).log_softmax(-1)
        divergence = (log_labels.exp() * (log_labels - log_probabilities)).sum(-1).mean()
        return distance + SIGMA * divergence

    return loss


def step(loss: Loss, logits: Tensor, target: Tensor) -> Callable[[], Tensor]:
    """One training step of the loss alone: its value and the gradient of the logits."""

    def run() -> Tensor:
        logits.grad = None
        value = loss(logits, target)
        value.backward()
        return value

    return run


def main() -> None:
    torch.manual_seed(0)
    bins = Bins(1, 240, unit="months")
    ours = ExpectationLDLLoss(bins, sigma=SIGMA)
    losses: dict[str, Loss] = {
        OURS: ours,
        "naive": naive(bins.centers),
        "in logarithms": in_logarithms(bins.centers),
        "naive, torch.compile": torch.compile(naive(bins.centers), dynamic=False),
        f"{OURS}, torch.compile": torch.compile(ours, dynamic=False),
    }
    comparisons = []
    for batch in BATCHES:
        logits = torch.randn(batch, len(bins), requires_grad=True)
        target = 1 + 239 * torch.rand(batch)
        steps = {name: step(loss, logits, target) for name, loss in losses.items()}
        values = {name: run().item() for name, run in steps.items()}
        spread = max(abs(value / values[OURS] - 1) for value in values.values())
        assert spread < 1e-4, values
        result = compare(OURS, steps, rounds=21)
        show(f"forward + backward, {batch} x {len(bins)}, float32", result)
        comparisons.append(
            {"batch": batch, "bins": len(bins), "largest_relative_difference": spread, **result}
        )
    write("loss", comparisons)


if __name__ == "__main__":
    main()
