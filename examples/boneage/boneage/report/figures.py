"""Figures of regions and of ages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from boneage.report.drawing import MARKERS, POINT, Ink, Picture, draw, legend, whole_numbers
from boneage.report.placement import Placement
from boneage.report.tables import SweepRow
from boneage.report.wording import ANNOTATED, FOUND

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sweep_figure(thresholds: list[float], rows: list[SweepRow], score: str, label: str) -> Picture:
    """A score of the boxes against the threshold, a line for each pair of regions.

    Args:
        thresholds: The thresholds tried.
        rows: The pairs' scores.
        score: `"mean_iou"` or `"ap50"`.
        label: The score, in words.
    """

    def plot(axes: Axes, ink: Ink) -> None:
        for row in rows:
            pair = row.pair
            values = [np.nan if cell is None else cell[score] for cell in row.cells]
            axes.plot(
                thresholds,
                values,
                color=getattr(ink, pair.region),
                linewidth=1.6,
                linestyle="--" if pair.name == "Metacarpal" else "-",
                label=f"{pair.found}, {pair.annotated}",
            )
            axes.plot(
                pair.scores["threshold"],
                pair.scores[score],
                MARKERS[pair.region],
                color=getattr(ink, pair.region),
                markersize=5,
            )
        axes.set(xlabel="threshold (share of the map's maximum)", ylabel=label, ylim=(-0.02, 1.02))
        legend(axes)

    best = ", ".join(
        f"{row.pair.found} and {row.pair.annotated} {row.pair.scores[score]:.2f} "
        f"at {row.pair.scores['threshold']:g}"
        for row in rows
    )
    return draw(plot, f"Curves of {label} over the threshold; at the chosen ones: {best}.")


def placement_figure(placement: Placement) -> Picture:
    """Centres of the found regions over the outlines of the annotated ones."""

    def plot(axes: Axes, ink: Ink) -> None:
        from matplotlib.patches import Rectangle

        for at, (name, (width, height)) in enumerate(placement.outlines.items()):
            axes.add_patch(
                Rectangle(
                    (-width / 2, at - height / 2),
                    width,
                    height,
                    fill=False,
                    edgecolor=ink.text,
                    linewidth=1,
                    linestyle=(0, (4, 2)),
                )
            )
            axes.text(
                width / 2,
                at + height / 2,
                f"{ANNOTATED[name]} ",
                color=ink.text,
                fontsize=POINT - 1,
                ha="right",
                va="bottom",
            )
        for region, points in placement.centres.items():
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=16,
                marker=MARKERS[region],
                alpha=0.6,
                linewidths=0,
                color=getattr(ink, region),
                label=FOUND[region],
            )
        axes.set(xlabel="across the hand", ylabel="wrist to knuckles", aspect="equal")
        axes.margins(0.15)
        legend(axes)

    return draw(
        plot,
        "Centres of the found regions, drawn over the outlines of wrist and metacarpals.",
        height=4.0,
    )


def agreement(error: np.ndarray) -> tuple[float, float, float]:
    """Lower limit of agreement, bias, and upper limit of errors (N,): mean and 1.96 deviations."""
    bias, spread = error.mean(), 1.96 * error.std(ddof=1 if len(error) > 1 else 0)
    return float(bias - spread), float(bias), float(bias + spread)


def age_error_figure(
    model: str, error: np.ndarray, truth: np.ndarray, male: np.ndarray, reach: float
) -> Picture:
    """Error of every test image against its true age, with the median error along the ages.

    Args:
        model: The model's name.
        error: Reading minus truth (N,), in months.
        truth: True ages (N,), in months.
        male: Sexes (N,).
        reach: How far the scale of errors goes to either side of 0, in months.
    """

    def plot(axes: Axes, ink: Ink) -> None:
        axes.axhline(0, color=ink.text, linewidth=0.8)
        for name, mask, color, marker in (
            ("boys", male, ink.hand, "o"),
            ("girls", ~male, ink.region1, "^"),
        ):
            axes.scatter(
                truth[mask] / 12,
                error[mask],
                s=_dot(len(truth)),
                marker=marker,
                alpha=0.55,
                linewidths=0,
                color=color,
                label=name,
            )
        ages, medians = _running_median(truth / 12, error)
        axes.plot(ages, medians, color=ink.text, linewidth=1.6, label="median")
        axes.set(xlabel="true age (years)", ylabel="error (months)", ylim=(-reach, reach))
        whole_numbers(axes)
        legend(axes, columns=3)

    middle = np.median(error)
    return draw(
        plot, f"Scatter of {model}'s errors over the true age; median {middle:+.1f} months."
    )


def bland_altman_figure(model: str, error: np.ndarray, truth: np.ndarray, reach: float) -> Picture:
    """Error of every test image against the mean of reading and truth, with bias and limits.

    Args:
        model: The model's name.
        error: Reading minus truth (N,), in months.
        truth: True ages (N,), in months.
        reach: How far the scale of errors goes to either side of 0, in months.
    """
    low, bias, high = agreement(error)

    def plot(axes: Axes, ink: Ink) -> None:
        axes.scatter(
            (truth + error / 2) / 12,
            error,
            s=_dot(len(truth)),
            alpha=0.5,
            linewidths=0,
            color=ink.region2,
        )
        for value, style in ((bias, "-"), (low, "--"), (high, "--")):
            axes.axhline(value, color=ink.text, linewidth=1.1, linestyle=style)
            axes.annotate(
                f"{value:+.1f}",
                (1, value),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                color=ink.text,
                fontsize=POINT - 1,
                va="center",
            )
        axes.set(
            xlabel="mean of reading and truth (years)",
            ylabel="reading - truth (months)",
            ylim=(-reach, reach),
        )
        whole_numbers(axes)

    return draw(
        plot,
        f"Bland-Altman plot of {model}: bias {bias:+.1f} months, limits of agreement "
        f"{low:+.1f} and {high:+.1f} months.",
    )


def _running_median(
    ages: np.ndarray, errors: np.ndarray, fewest: int = 5
) -> tuple[list[float], list[float]]:
    """Median error in steps of two years, where there are enough images."""
    step = np.floor(ages / 2).astype(int)
    known = [s for s in np.unique(step) if (step == s).sum() >= fewest]
    return [2 * s + 1 for s in known], [float(np.median(errors[step == s])) for s in known]


def _dot(count: int) -> float:
    return 14 if count < 500 else 6
