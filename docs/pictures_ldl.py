"""The pictures of the pages on distributions: python docs/pictures_ldl.py [FOLDER]."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ldlcam import (
    Bins,
    ExpectationLDLLoss,
    LabelDistribution,
    TemperatureScaling,
    gaussian_labels,
    laplace_labels,
    plot_reliability,
    triangular_labels,
    two_hot_labels,
)

DOCS = Path(__file__).parent
MONTHS = Bins(1, 240, unit="months")
ENDS = ("renormalize", "extend", "preserve_mean")


def labels() -> Figure:
    """One age, and what different labels say about its neighbours."""
    years = Bins(30, 50, unit="years")
    age = torch.tensor([40.3])
    kinds = {
        "two_hot_labels": two_hot_labels(age, years),
        "triangular_labels, width 5": triangular_labels(age, years, 5.0),
        "laplace_labels, scale 2": laplace_labels(age, years, 2.0),
        "gaussian_labels, sigma 2": gaussian_labels(age, years, 2.0),
    }
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    for axes, (name, (label,)) in zip(panels.flat, kinds.items(), strict=True):
        axes.bar(years.centers.numpy(), label.numpy(), width=0.9)
        axes.axvline(40.3, color="black", lw=1)
        axes.set_title(name, fontsize=9)
    for axes in panels[1]:
        axes.set_xlabel("years")
    for axes in panels[:, 0]:
        axes.set_ylabel("probability")
    return figure


def ends() -> Figure:
    """Labels at an end of the range, and how far their means are from the value."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    shapes, bias = figure.subplots(1, 2)
    values = torch.linspace(1, 240, 240)
    for how in ENDS:
        (label,) = gaussian_labels(torch.tensor([5.0]), MONTHS, 15.0, ends=how)
        shapes.plot(MONTHS.centers[:60], label[:60], label=f'ends="{how}"')
        means = (gaussian_labels(values, MONTHS, 15.0, ends=how) * MONTHS.centers).sum(-1)
        bias.plot(values, means - values)
    shapes.axvline(5, color="black", lw=1)
    shapes.set(xlabel="months", ylabel="probability", title="the label of 5 months")
    shapes.legend(fontsize=8)
    bias.set(xlabel="value, months", ylabel="mean of the label - value, months")
    bias.grid(alpha=0.3)
    return figure


def best_predictions(target: Tensor, weight: float, how: str, start: Tensor) -> LabelDistribution:
    """The distribution that has the least loss with each target, by descent from logits (N, K)."""
    criterion = ExpectationLDLLoss(
        MONTHS, 15.0, weight, ends=how, distance="smooth_l1", reduction="sum"
    )
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        optimizer.zero_grad()
        criterion(logits, target).backward()
        optimizer.step()
        schedule.step()
    return LabelDistribution(logits.detach(), MONTHS)


def weight() -> Figure:
    """What is learned with different weights: the shape, and the bias at the ends."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    shapes, bias = figure.subplots(1, 2)
    noise = torch.randn(1, 240, generator=torch.Generator().manual_seed(0))
    for value in (0.0, 1.0, 15.0):
        (best,) = best_predictions(torch.tensor([100.0]), value, "renormalize", noise)
        shapes.plot(MONTHS.centers, best.probs, lw=1, label=f"weight {value:g}")
    shapes.set(xlabel="months", ylabel="probability", title="learned for 100 months")
    shapes.legend(fontsize=8)
    target = torch.tensor([1.5, 3.0, 5.0, 10.0, 15.0, 22.0, 30.0, 40.0, 60.0])
    bells = -((MONTHS.centers - target[:, None]) / 15).square() / 2
    for how, color in (("renormalize", "C0"), ("preserve_mean", "C2")):
        for value, style in ((1.0, ":"), (10.0, "--"), (100.0, "-")):
            best = best_predictions(target, value, how, bells)
            bias.plot(target, best.mean - target, style, color=color, label=f"{how}, {value:g}")
    bias.set(xlabel="value, months", ylabel="learned mean - value, months")
    bias.legend(fontsize=8, title="ends, weight", title_fontsize=8)
    bias.grid(alpha=0.3)
    return figure


def reliability() -> Figure:
    """Predictions that are too sure of themselves, before and after temperature scaling."""
    generator = torch.Generator().manual_seed(0)
    means = 60 + 120 * torch.rand(4000, generator=generator)
    ages = means + 12 * torch.randn(4000, generator=generator)
    logits = -((MONTHS.centers - means[:, None]) / 6).square() / 2
    validation, test = slice(0, 2000), slice(2000, None)
    scaling = TemperatureScaling().fit(logits[validation], ages[validation], MONTHS)
    return plot_reliability(
        {
            "as predicted": LabelDistribution(logits[test], MONTHS),
            "temperature scaled": LabelDistribution(scaling(logits[test]), MONTHS),
        },
        ages[test],
    )


PICTURES: dict[str, Callable[[], Figure]] = {
    "labels.png": labels,
    "ends.png": ends,
    "weight.png": weight,
    "reliability.png": reliability,
}


def main(folder: Path) -> None:
    """Make all pictures."""
    for name, draw in PICTURES.items():
        draw().savefig(folder / name, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "pictures")
