"""Tables, read strictly: a header and numbered rows, or one message that says what to mend."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from boneage.errors import UserError

SUFFIXES = (".csv", ".xlsx")

_SEPARATORS = ",;\t"


class Row(NamedTuple):
    """One row: the line of the file that it ends on, and its cells by column, blanks stripped."""

    number: int
    cells: dict[str, str]


def read_header(path: Path) -> list[str]:
    """The names of a table's columns; none for an empty file.

    Raises:
        UserError: If the file cannot be read.
    """
    _, header = next(_lines(path), (0, []))
    return header


def read_rows(path: Path) -> list[Row]:
    """All rows of a table that have any text; cells that a row lacks are empty.

    A table is a CSV file, separated by commas, semicolons or tabs, or the first sheet of an XLSX
    file.

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


def parse_number(text: str) -> float:
    """A number, also with a comma for its point, as tables are written in many languages.

    Raises:
        ValueError: If it is none, or its comma could as well separate thousands.
    """
    before, comma, after = text.partition(",")
    return float(f"{before}.{after}" if comma and len(after) != 3 else text)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that has any text."""
    lines = _sheet_lines(path) if path.suffix.lower() == ".xlsx" else _text_lines(path)
    for number, line in lines:
        cells = [cell.strip() for cell in line]
        if any(cells):
            yield number, cells


def _text_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=_separator(file))
            file.seek(0)
            for line in reader:
                yield reader.line_num, line
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text in UTF-8; save it as CSV (UTF-8)") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: not readable as a CSV table ({error})") from None


def _separator(lines: Iterable[str]) -> str:
    """What separates the most names in the first line with any text; commas, if in doubt."""
    header = next((line for line in lines if line.strip(" \t\r\n;,")), "")
    return max(_SEPARATORS, key=header.count)


def _sheet_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    import openpyxl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            try:
                for number, line in enumerate(book.worksheets[0].iter_rows(values_only=True), 1):
                    yield number, ["" if cell is None else _as_text(cell) for cell in line]
            finally:
                book.close()
    except Exception as error:  # a broken archive of broken XML: it may raise anything
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(
            f"{path}: not readable as an XLSX table ({reason}); save it as CSV"
        ) from None


def _as_text(cell: object) -> str:
    # Spreadsheets know no whole numbers.
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
