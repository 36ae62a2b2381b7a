"""Summary: what a run measured, as a few small tables on the console."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boneage.report import tables
from boneage.report.wording import FOUND, interval, number, percent


def print_summary(metrics: dict[str, Any], console: Console) -> None:
    """Print where the regions fell, how well ages were told, and which differences are real.

    Args:
        metrics: What `evaluate` measured.
        console: Where to print.
    """
    count = metrics["ages"]["constant"]["count"]
    console.print(
        "[bold]Regions[/] (in brackets: the median box and a fixed point, nothing learned)"
    )
    console.print(_regions(metrics))
    console.print(f"[bold]Ages[/] of {count} test images (months; shares within 6 and 12 months)")
    console.print(_ages(metrics))
    if metrics["ages"]["comparisons"]:
        console.print("[bold]Paired gains[/] of the second model (months)")
        console.print(_gains(metrics))


def _regions(metrics: dict[str, Any]) -> Table:
    table = _table("found", "annotated")
    for name in ("images", "at", "mIoU", "AP50", "peak inside"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in tables.overlaps(metrics):
        scores, control = pair.scores, pair.control
        _add(
            table,
            pair.found,
            # The threshold used for the crops is the one of the pair that overlaps more.
            pair.name + ("*" if pair.used else ""),
            str(scores["count"]),
            f"{scores['threshold']:g}",
            _beside(number(scores["mean_iou"], 2), number(control.get("mean_iou"), 2)),
            _beside(number(scores["ap50"], 2), number(control.get("ap50"), 2)),
            _beside(number(scores["pointing"], 2), number(control.get("pointing"), 2)),
        )
    for region, found in metrics["localization"].items():
        if not found["against"]:
            _add(table, FOUND[region], "no boxes", "", f"{found['threshold']:g}", "", "", "")
    missing = ", ".join(
        f"{FOUND[region]} {found['whole_image_instead']}"
        for region, found in metrics["localization"].items()
    )
    table.caption = f"* cut out at this threshold. Whole image instead, for want of one: {missing}"
    return table


def _ages(metrics: dict[str, Any]) -> Table:
    floors = "floors" in metrics["ages"]
    table = _table("model")
    names = ["MAE (95%)", "RMSE", "in 6", "in 12", "90% covers"]
    for name in [*names, "floor"] if floors else names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in tables.ages(metrics):
        test = row.test
        cells = [
            row.name,
            _beside(number(test.get("mae")), interval(test.get("mae_interval"))),
            number(test.get("rmse")),
            percent(test.get("cs6")),
            percent(test.get("cs12")),
            percent(row.coverage),
        ]
        _add(table, *cells, *([number(row.floor)] if floors else []))
    return table


def _gains(metrics: dict[str, Any]) -> Table:
    table = _table("first", "second")
    table.add_column("gain (95%)", justify="right", no_wrap=True)
    table.add_column("")
    for pair in tables.comparisons(metrics):
        gain = _beside(number(pair.paired["gain"], 2), interval(pair.paired["interval"], 2))
        clear = "" if pair.paired["excludes_zero"] else "may be chance"
        _add(table, pair.first, pair.second, gain, clear)
    return table


def _table(*words: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left")
    for name in words:
        table.add_column(name, overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    # As text, not markup: a model may have brackets in its name.
    table.add_row(*(Text(cell) for cell in cells))


def _beside(figure: str, other: str) -> str:
    return f"{figure} ({other})"
