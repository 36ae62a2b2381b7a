"""What a comparison measured, as two small tables on the console."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from boneage.report.wording import interval, number, percent


def print_comparison(results: dict[str, Any], console: Console) -> None:
    """Print the means over the seeds.

    Args:
        results: What `compare_losses` measured.
        console: Where to print.
    """
    count, seeds = results["data"]["parts"]["test"], results["configuration"]["comparison"]["seeds"]
    console.print(f"{count} test images, means of {len(seeds)} seeds (months; shares within 6, 12)")
    for title, scores in (("fixed features", results["heads"]), ("whole", results["whole"])):
        if scores:
            console.print(_table(title, scores))


def _table(title: str, scores: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(title)
    for name in ("MAE", "in 6", "in 12", "CRPS", "90% covers", "gain on l1 (95%)"):
        table.add_column(name, justify="right", no_wrap=True)
    for loss, figures in scores.items():
        mean, gain = figures["mean"], figures["gain_on_l1"]
        table.add_row(
            loss,
            number(mean["mae"], 2),
            percent(mean["cs6"]),
            percent(mean["cs12"]),
            number(mean["crps"], 2),
            percent(mean["coverage90"]),
            "" if loss == "l1" else f"{number(gain['gain'], 2)} ({interval(gain['interval'], 2)})",
        )
    return table
