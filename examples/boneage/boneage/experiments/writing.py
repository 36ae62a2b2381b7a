"""What the pages and CSV files of all tables and figures have in common."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any


def heading(results: dict[str, Any]) -> list[str]:
    """The first lines of a page: its title, and the command that made it."""
    return [f"# {results['title']}", "", "```", results["command"], "```", ""]


def markdown_row(*cells: Any) -> str:
    """A row of a table; a bar within a cell does not end it."""
    told = (str(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(told)} |"


def overlaps(mean_iou: float, ap50: float) -> str:
    """How found boxes overlap annotated ones: the mean IoU and the AP50, in one cell."""
    return f"{mean_iou:.3f} / {ap50:.3f}"


def picture(results: dict[str, Any]) -> str:
    """The drawing beside the page."""
    return f"![{results['title']}]({results['name']}.png)"


def csv_text(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A CSV file: numbers with four decimals, nothing for None."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return file.getvalue()


def _plain(cell: Any) -> Any:
    return f"{cell:.4f}" if isinstance(cell, float) else cell
