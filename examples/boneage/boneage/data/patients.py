"""What is known of the images to be read, beside the images: a table of their patients."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from boneage.config import Table
from boneage.data.rows import Row, read_header, read_rows
from boneage.data.tables import (
    find_columns,
    parse_covariates,
    parse_rows,
    parse_sex,
    sex_words,
)
from boneage.errors import Problems, UserError


class Known(NamedTuple):
    """What a row says of an image."""

    male: bool | None
    """None if it does not say."""
    covariates: tuple[float, ...] | None
    """One each of the model's, NaN where the table says nothing; None if it says nothing at all."""


def read_patients(path: Path, table: Table) -> dict[str, Known]:
    """Read a table of patients, CSV or XLSX, by the names of their images without suffix.

    Args:
        path: The table: an id, and, as far as it has them, a sex and the model's covariates.
        table: What the columns are called, as the data set's were.

    Raises:
        UserError: If it cannot be read, or with everything that is wrong with its rows.
    """
    header, rows = read_header(path), read_rows(path)
    try:
        columns = find_columns(header, table, needed=("id",))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None

    def parse(id: str, row: Row) -> Known:
        return _parse(id, row, columns.get("sex"), table)

    patients, problems = parse_rows(rows, columns["id"], parse)
    if problems:
        raise Problems(path, problems)
    return patients


def unsaid(path: Path, table: Table) -> str:
    """What such a table has no column for, in words; empty if it has one for all."""
    try:
        find_columns(read_header(path), table, needed=("sex", "covariates"))
    except ValueError as error:
        return str(error)
    return ""


def _parse(id: str, row: Row, sex: str | None, table: Table) -> Known:
    male = None
    if sex is not None and row.cells[sex]:
        male = parse_sex(row.cells[sex], f"id {id}", sex_words(sex))
    return Known(male, parse_covariates(id, row, table))
