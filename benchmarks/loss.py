"""ExpectationLDLLoss, forward and backward, beside ways to write it by hand.

Time; memory besides the logits and their gradient; and its share of a step of training.

Run: python benchmarks/loss.py
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from _measure import compare, peak_bytes, show, write
from torch import Tensor
from torch.nn import functional as F

from ldlcam import Bins, ExpectationLDLLoss

BATCHES = (4096, 65536)
ROUNDS = {4096: 21, 65536: 7}
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


def forget(logits: Tensor) -> None:
    """Give back the gradient of the step before."""
    logits.grad = None


def floor(logits: Tensor) -> Callable[[], Tensor]:
    """Two exponentials an element, which no way can do without: those of prediction and label."""
    values = -logits.detach().abs()
    into = torch.empty_like(values)

    def run() -> Tensor:
        torch.exp(values, out=into)
        return torch.exp(values, out=into)

    return run


def share_of_a_step(bins: Bins) -> dict[str, Any]:
    """How much of a training step of a small network, 64 images of 128 pixels, is the loss."""
    network = timm.create_model("mobilenetv4_conv_small", num_classes=len(bins))
    optimizer = torch.optim.AdamW(network.parameters())
    criterion = ExpectationLDLLoss(bins, sigma=SIGMA)
    images, target = torch.randn(64, 3, 128, 128), 1 + 239 * torch.rand(64)
    whole, loss_alone = [], []
    for _ in range(8):
        start = time.perf_counter()
        optimizer.zero_grad()
        logits = network(images)
        criterion(logits, target).backward()
        optimizer.step()
        whole.append(time.perf_counter() - start)
        leaf = logits.detach().requires_grad_()
        start = time.perf_counter()
        criterion(leaf, target).backward()
        loss_alone.append(time.perf_counter() - start)
    share = statistics.median(loss_alone[2:]) / statistics.median(whole[2:])
    print(f"\nof a training step of mobilenetv4_conv_small, the loss is {100 * share:.2f}%")
    return {
        "network": "mobilenetv4_conv_small",
        "images": [64, 3, 128, 128],
        "step_ms": round(1e3 * statistics.median(whole[2:]), 3),
        "loss_ms": round(1e3 * statistics.median(loss_alone[2:]), 3),
        "share": round(share, 5),
    }


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
    comparisons: list[dict[str, Any]] = []
    for batch in BATCHES:
        logits = torch.randn(batch, len(bins), requires_grad=True)
        target = 1 + 239 * torch.rand(batch)
        steps = {name: step(loss, logits, target) for name, loss in losses.items()}
        values = {name: run().item() for name, run in steps.items()}
        spread = max(abs(value / values[OURS] - 1) for value in values.values())
        assert spread < 1e-4, values
        timed = steps | {"floor: two exponentials": floor(logits)}
        result = compare(OURS, timed, rounds=ROUNDS[batch], repeats=5)
        show(f"forward + backward, {batch} x {len(bins)}, float32", result)
        size = logits.numel() * logits.element_size()
        beyond = {}
        for name, run in steps.items():
            beyond[name] = round(peak_bytes(run, forget=partial(forget, logits)) / size - 1, 3)
            print(f"  {name:36} {beyond[name]:8.2f} of the logits beyond their gradient")
        comparisons.append(
            {
                "batch": batch,
                "bins": len(bins),
                "largest_relative_difference": spread,
                "memory_beyond_logits_and_gradient": beyond,
                **result,
            }
        )
    comparisons.append(share_of_a_step(bins))
    write("loss", comparisons)


if __name__ == "__main__":
    main()
