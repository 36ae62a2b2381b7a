"""A table's figures drawn: errors by row, or along an axis, with those of the paper."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#c65200", "#9b3f83", "#3f7a4a", "#7a6a00", "#5b6770", "#1f8a8a", "#a83232")
_GREY = "#7a828a"


def draw_table(results: dict[str, Any]) -> Figure:
    """Errors of every row: lines over an axis where the rows lie on one, else dots beside them."""
    from matplotlib.figure import Figure

    rows = [row for row in results["rows"] if not row["missing"]]
    labels = list(dict.fromkeys(row["label"] for row in rows))
    height = 3.4 if results["axis"] else 1.3 + 0.34 * len(labels)
    figure = Figure(figsize=(6.4, height), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    series = list(dict.fromkeys(row["series"] for row in rows))
    for name, colour in zip(series, cycle(COLOURS), strict=False):
        own = [row for row in rows if row["series"] == name]
        (_along if results["axis"] else _beside)(axes, own, labels, colour, name)
    if results["axis"]:
        _finish_axis(axes, rows, results["axis"])
    else:
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlabel("mean absolute error (months)")
    tidy(axes, "y" if results["axis"] else "x")
    handles, names = axes.get_legend_handles_labels()
    if len(names) > 1:
        figure.legend(handles, names, loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    return figure


def tidy(axes: Axes, grid: Literal["x", "y", "both"] = "both") -> None:
    """A quiet grid behind what is drawn, and no frame above it."""
    axes.grid(axis=grid, color="#e3e6e9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _beside(
    axes: Axes, rows: list[dict[str, Any]], labels: list[str], colour: str, name: str
) -> None:
    places = [labels.index(row["label"]) for row in rows]
    for place, row in zip(places, rows, strict=True):
        axes.plot(row["seeds_mae"], [place] * len(row["seeds_mae"]), "|", color=colour, alpha=0.7)
    axes.plot([row["mae"] for row in rows], places, "o", color=colour, label=name or "here")
    floors = [(row["floor"], place) for row, place in zip(rows, places, strict=True)]
    _plot_known(axes, floors, "3", colour, f"{name}: floor" if name else "floor")
    known = [(row["published"], place) for row, place in zip(rows, places, strict=True)]
    _plot_known(axes, known, "x", colour, f"{name}: paper" if name else "paper, other data")


def _along(
    axes: Axes, rows: list[dict[str, Any]], labels: list[str], colour: str, name: str
) -> None:
    places = [row["at"] for row in rows]
    for place, row in zip(places, rows, strict=True):
        axes.plot([place] * len(row["seeds_mae"]), row["seeds_mae"], "_", color=colour, alpha=0.7)
    axes.plot(places, [row["mae"] for row in rows], "o-", color=colour, label=name or "here")
    known = [(row["at"], row["published"]) for row in rows]
    _plot_known(axes, known, "x:", _GREY, "paper, other data")
    _plot_known(
        axes, [(row["at"], row["floor"]) for row in rows], ":", colour, f"{name} floor".strip()
    )


def _plot_known(
    axes: Axes, points: list[tuple[Any, Any]], marks: str, colour: str, label: str
) -> None:
    """The points of which both coordinates are known, if there is any."""
    known = [point for point in points if None not in point]
    if known:
        axes.plot(*zip(*known, strict=True), marks, color=colour, alpha=0.7, label=label)


def _finish_axis(axes: Axes, rows: list[dict[str, Any]], label: str) -> None:
    places = sorted({row["at"] for row in rows})
    least = min((place for place in places if place > 0), default=1)
    if max(places) > 50 * least:
        # Weights of 0 and of thousandths to ones on one axis.
        axes.set_xscale("symlog", linthresh=least, linscale=0.5)
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel("mean absolute error (months)")
