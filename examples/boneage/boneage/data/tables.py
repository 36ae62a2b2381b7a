"""The table of a data set: which radiographs there are, with age, sex and file."""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from boneage.data.images import SUFFIXES
from boneage.errors import UserError

# The spellings of the RSNA tables, in lower case without blanks.
_ID = ("id", "imageid", "caseid")
_AGE = ("boneage", "boneage(months)", "groundtruthboneage(months)")
_SEX = ("male", "sex")
_MALE = {"true": True, "1": True, "1.0": True, "m": True, "male": True}
_FEMALE = {"false": False, "0": False, "0.0": False, "f": False, "female": False}
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Radiograph:
    """One row of a data set: age in months, sex, and where the image lies."""

    id: str
    months: float
    male: bool
    path: Path


def read_table(folder: Path, *, first: float, last: float) -> list[Radiograph]:
    """Read a data set in one of the RSNA layouts, sorted by id.

    Args:
        folder: The folder with one CSV table of ages and, in it or below it, the images.
        first: Least age that can be told, in months.
        last: Greatest age that can be told, in months.

    Returns:
        The radiographs, sorted by id (numbers as numbers).

    Raises:
        UserError: With everything that is wrong with the table, by row.
    """
    table = find_table(folder)
    images = find_images(folder)
    rows, columns = _read_rows(table)
    problems: list[str] = []
    radiographs = []
    for number, row in enumerate(rows, start=2):
        try:
            radiographs.append(_parse(row, columns, images, first, last))
        except ValueError as error:
            problems.append(f"row {number}: {error}")
    counts = Counter(radiograph.id for radiograph in radiographs)
    problems += [f"id {id}: {count} rows; keep one" for id, count in counts.items() if count > 1]
    if problems:
        shown = problems[:_MOST_SHOWN]
        if len(problems) > len(shown):
            shown.append(f"... and {len(problems) - len(shown)} more")
        raise UserError("\n  ".join([f"{table}: cannot be used as it is:", *shown]))
    if not radiographs:
        raise UserError(f"{table}: has a header but no rows")
    return sorted(radiographs, key=lambda radiograph: id_order(radiograph.id))


def id_order(id: str) -> tuple[int, int, str]:
    """Sort key of an id: numbers by value, before any other names."""
    return (0, int(id), id) if id.isdecimal() else (1, 0, id)


def find_table(folder: Path) -> Path:
    """The CSV table of ages in a data set's folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of radiographs")
    tables = [path for path in sorted(folder.glob("*.csv")) if _columns(path) is not None]
    if not tables:
        names = ", ".join(path.name for path in sorted(folder.glob("*.csv"))) or "none"
        raise UserError(
            f"{folder}: no table with columns for id, boneage (months) and male or sex; "
            f"CSV files there: {names}"
        )
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise UserError(f"{folder}: more than one table of ages ({names}); keep one")
    return tables[0]


def find_images(folder: Path) -> dict[str, Path]:
    """Every image in or below a folder, by its name without suffix."""
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)
    images: dict[str, Path] = {}
    for path in paths:
        images.setdefault(path.stem, path)
    if not images:
        raise UserError(f"{folder}: no images ({', '.join(SUFFIXES)}) in it or below it")
    return images


def _columns(path: Path) -> dict[str, str] | None:
    """Which columns of a CSV file hold id, age and sex; None where one is missing."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as a CSV table ({error})") from None
    found = {}
    for meaning, spellings in (("id", _ID), ("age", _AGE), ("sex", _SEX)):
        names = [name for name in header if name.lower().replace(" ", "") in spellings]
        if not names:
            return None
        found[meaning] = names[0]
    return found


def _read_rows(path: Path) -> tuple[list[dict[str, str]], dict[str, str]]:
    columns = _columns(path)
    assert columns is not None, "find_table returns tables with all columns"
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file)), columns


def _parse(
    row: dict[str, str], columns: dict[str, str], images: dict[str, Path], first: float, last: float
) -> Radiograph:
    id, age, sex = ((row[columns[name]] or "").strip() for name in ("id", "age", "sex"))
    if not id:
        raise ValueError("the id is empty")
    if id not in images:
        raise ValueError(f"id {id}: no image of that name")
    try:
        months = float(age)
    except ValueError:
        raise ValueError(f"id {id}: the age {age!r} is not a number of months") from None
    if not math.isfinite(months) or not first <= months <= last:
        raise ValueError(f"id {id}: the age {age} is outside of {first:g} to {last:g} months")
    return Radiograph(id, months, parse_sex(sex, f"id {id}"), images[id])


def parse_sex(text: str, where: str) -> bool:
    """Whether a word for the sex means male."""
    word = text.strip().lower()
    if word in _MALE:
        return True
    if word in _FEMALE:
        return False
    raise ValueError(f"{where}: the sex {text!r} is none of True, False, M, F, male, female, 1, 0")
