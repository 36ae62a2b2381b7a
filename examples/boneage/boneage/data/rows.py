"""CSV files, read strictly: a header and numbered rows, or one message that says what to mend."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from boneage.errors import UserError

_SEPARATORS = {";": "semicolons", "\t": "tabs"}


class Row(NamedTuple):
    """One row: the line of the file that it ends on, and its cells by column, blanks stripped."""

    number: int
    cells: dict[str, str]


def read_header(path: Path) -> list[str]:
    """The names of a CSV file's columns; none for an empty file.

    Raises:
        UserError: If the file cannot be read, or its columns are not separated by commas.
    """
    _, header = next(_lines(path), (0, []))
    for separator, name in _SEPARATORS.items():
        if len(header) == 1 and separator in header[0]:
            raise UserError(f"{path}: its columns are separated by {name}; save it with commas")
    return header


def read_rows(path: Path) -> list[Row]:
    """All rows of a CSV file that have any text; cells that a row lacks are empty.

    Raises:
        UserError: If the file cannot be read, or a row has more cells than the header.
    """
    header = read_header(path)
    rows = []
    for number, cells in list(_lines(path))[1:]:
        if any(cells[len(header) :]):
            raise UserError(
                f"{path}, row {number}: {len(cells)} cells under {len(header)} columns; "
                "put quotes around a cell that holds a comma"
            )
        cells += [""] * (len(header) - len(cells))
        rows.append(Row(number, dict(zip(header, cells, strict=False))))
    return rows


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that has any text."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for line in reader:
                cells = [cell.strip() for cell in line]
                if any(cells):
                    yield reader.line_num, cells
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text in UTF-8; save it as CSV (UTF-8)") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: not readable as a CSV table ({error})") from None
