"""Figures of predicted distributions: some beside their labels, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from ldlcam import (
    LabelDistribution,
    coverage_by_level,
    plot_distributions,
    plot_reliability,
    probability_integral_transform,
)
from torch import Tensor

from boneage.report.drawing import POINT, Ink, Picture, draw, legend, redraw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS = 10
_LEVEL = 0.9


def distribution_figure(
    title: str, predicted: LabelDistribution, label: Tensor | None, truth: float
) -> Picture:
    """What a model says of one image, over the label that it was to learn; the paper's Fig. 4.

    Args:
        title: The image, in words.
        predicted: Its distribution (1,).
        label: The label (1, K), if there is one.
        truth: The true age, in months.
    """

    def make() -> Figure:
        figure = plot_distributions(predicted, label, torch.tensor([truth]))
        axes = figure.axes[0]
        # The page explains all of these figures at once.
        if legend := axes.get_legend():
            legend.remove()
        axes.set_xlabel("age (months)")
        return figure

    mean, sd = predicted.mean.item(), predicted.stddev.item()
    return redraw(
        make,
        f"Distribution of {title}: mean {mean:.0f}, standard deviation {sd:.0f} months.",
        width=3.2,
        height=2.3,
    )


def reliability_figure(
    model: str,
    states: Mapping[str, LabelDistribution],
    truth: np.ndarray,
    conformal: float | None,
) -> Picture:
    """Share of the true ages inside of central intervals against the intervals' level.

    Args:
        model: The model's name.
        states: Its distributions (N,), as trained and corrected.
        truth: True ages (N,), in months.
        conformal: The share inside of its conformal 90% intervals, if it has any.
    """
    target = torch.from_numpy(truth)

    def make() -> Figure:
        figure = plot_reliability(states, target)
        axes = figure.axes[0]
        if conformal is not None:
            axes.plot(_LEVEL, conformal, "D", markersize=6, label="conformal 90%")
            axes.legend(fontsize=POINT - 1)
        return figure

    inside = ", ".join(
        f"{state} {coverage_by_level(distributions, target, [_LEVEL]).item():.0%}"
        for state, distributions in states.items()
    )
    return redraw(
        make,
        f"Reliability of {model}: share of ages inside of central 90% intervals {inside}.",
        height=3.8,
    )


def pit_figure(model: str, states: Mapping[str, LabelDistribution], truth: np.ndarray) -> Picture:
    """Histogram of where the true ages lie in their distributions: flat, if these are right.

    Args:
        model: The model's name.
        states: Its distributions (N,), as trained and corrected; the last ones are bars.
        truth: True ages (N,), in months.
    """
    target = torch.from_numpy(truth)
    heights = {
        state: _shares(probability_integral_transform(distributions, target).numpy())
        for state, distributions in states.items()
    }
    edges = np.linspace(0, 1, _BARS + 1)
    even = 1 / _BARS
    chance = 1.96 * np.sqrt(even * (1 - even) / len(truth))
    last = list(states)[-1]

    def plot(axes: Axes, ink: Ink) -> None:
        axes.axhspan(
            max(even - chance, 0), even + chance, color=ink.text, alpha=0.12, lw=0, label="chance"
        )
        axes.axhline(even, color=ink.text, linewidth=0.8)
        # In the colours of the reliability figure.
        for at, (state, shares) in enumerate(heights.items()):
            filled = state == last
            axes.stairs(
                shares,
                edges,
                fill=filled,
                color=f"C{at}",
                alpha=0.6 if filled else 1,
                linewidth=0 if filled else 1.6,
                label=state,
            )
        axes.set(
            xlabel="place of the true age in its distribution (cdf)",
            ylabel="share of images",
            xlim=(0, 1),
        )
        axes.set_ylim(bottom=0)
        legend(axes, columns=3)

    low, high = heights[last][0], heights[last][-1]
    return draw(
        plot,
        f"Histogram of where the true ages lie in {model}'s distributions: {low:.0%} in the "
        f"lowest tenth, {high:.0%} in the highest.",
        height=3.8,
    )


def _shares(places: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(places, bins=_BARS, range=(0, 1))
    return counts / len(places)
