"""The table of a data set: which radiographs there are, with age, sex and file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from boneage.config import Table
from boneage.data.images import FORMATS, image_files, image_name
from boneage.data.rows import SUFFIXES, Row, parse_number, read_header, read_rows
from boneage.errors import Problems, UserError

# The spellings of the RSNA tables: small letters, and nothing but letters.
_SPELLINGS = {
    "id": ("id", "imageid", "caseid"),
    "age": ("boneage", "boneagemonths", "groundtruthboneagemonths"),
    "sex": ("male", "sex"),
}
# How many of a unit are how many months: of 1461 days, four years.
_MONTHS = {"days": (1461, 48), "weeks": (1461, 336), "months": (1, 1), "years": (1, 12)}
# Twenty ages or more, none above twenty, are most likely years.
_MANY, _YEARS = 20, 20
_SEXES = {"m": True, "male": True, "f": False, "female": False}
# Yes and no answer "male"; under "sex" their meaning would be a guess.
_ANSWERS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}

# What says how the radiographs are divided.
_OF_SPLIT = ("patient", "part")
# The names of the parts, and other words for them.
_PARTS = {name: name for name in ("train", "validation", "test")}
_PARTS |= {"training": "train", "val": "validation", "testing": "test"}

_RSNA = Table()

T = TypeVar("T")


@dataclass(frozen=True)
class Radiograph:
    """One row of a data set: age in months, sex, where the image lies, and what else is known.

    `patient` and `part` are empty where the table has no column for them.
    """

    id: str
    months: float
    male: bool
    path: Path
    covariates: tuple[float, ...] = ()
    patient: str = ""
    part: str = ""


def read_table(
    folder: Path, *, first: float, last: float, table: Table = _RSNA
) -> list[Radiograph]:
    """Read a data set, sorted by id: see `check_table`.

    Raises:
        UserError: With everything that is wrong with the table, by row.
    """
    radiographs, problems = check_table(folder, first=first, last=last, table=table)
    if problems:
        raise Problems(find_table(folder, table), problems)
    return radiographs


def check_table(
    folder: Path, *, first: float, last: float, table: Table = _RSNA
) -> tuple[list[Radiograph], list[str]]:
    """Read a data set as far as it can be read.

    Args:
        folder: The folder with one table of ages, CSV or XLSX, and, in it or below it, the images.
        first: Least age that can be told, in months.
        last: Greatest age that can be told, in months.
        table: Names of the columns, and the unit of the ages (default: as in RSNA's tables).

    Returns:
        The radiographs, sorted by id (numbers as numbers), and what is wrong with the other rows.

    Raises:
        UserError: If there is no table to read, none of its images, or not a single row.
    """
    path = find_table(folder, table)
    columns = find_columns(read_header(path), table)
    rows = read_rows(path)
    images = find_images(folder)

    def parse(id: str, row: Row) -> Radiograph:
        radiograph = _parse(id, row, columns, images, table)
        _check_age(radiograph, first, last)
        return radiograph

    radiographs, problems = parse_rows(rows, columns["id"], parse)
    if not rows:
        raise UserError(f"{path}: has a header but no rows; add one row for each image")
    ages = [radiograph.months for radiograph in radiographs.values()]
    if table.unit is None and len(ages) >= _MANY and max(ages) <= _YEARS:
        problems.append(
            f"all ages are at most {max(ages):g}, which looks like years; "
            "set table.unit to years, or to months if they are"
        )
    return [radiographs[id] for id in sorted(radiographs, key=id_order)], problems


def id_order(id: str) -> tuple[int, int, str]:
    """Sort key of an id: numbers by value, before any other names."""
    return (0, int(id), id) if id.isdecimal() else (1, 0, id)


def find_table(folder: Path, table: Table = _RSNA) -> Path:
    """The table of ages in a data set's folder, CSV or XLSX.

    Raises:
        UserError: If there is none, or more than one; it says what each table lacks.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of radiographs")
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from None
    tables, others = [], []
    for path in paths:
        if path.name.startswith((".", "~$")) or not path.is_file():
            continue
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            find_columns(read_header(path), table)
            tables.append(path)
        except UserError as error:
            others.append(str(error).removeprefix(f"{folder}/"))
        except ValueError as error:
            others.append(f"{path.name}: {error}")
    if not tables:
        names = (table.id or "id", table.age or "boneage (months)", table.sex or "male (or sex)")
        wanted = "{}: no CSV or XLSX table with an {}, {} and {}".format(folder, *names)
        raise UserError("\n  ".join([wanted, *others]))
    if len(tables) > 1:
        several = ", ".join(path.name for path in tables)
        raise UserError(f"{folder}: more than one table of ages ({several}); keep one")
    return tables[0]


def find_images(folder: Path) -> dict[str, list[Path]]:
    """The images in or below a folder by their names without suffix: mostly one a name.

    Raises:
        UserError: If there are none.
    """
    images: dict[str, list[Path]] = {}
    for path in image_files(folder):
        images.setdefault(image_name(path), []).append(path)
    if not images:
        raise UserError(f"{folder}: no images ({FORMATS}) in it or below it")
    return images


def sex_words(column: str) -> Mapping[str, bool]:
    """What a column of that name may say, and whether it means male."""
    return _SEXES | _ANSWERS if _letters(column) == "male" else _SEXES


def parse_sex(text: str, where: str, words: Mapping[str, bool] = _SEXES) -> bool:
    """Whether a word for the sex means male.

    Raises:
        ValueError: If it is none of the words.
    """
    male = words.get(text.strip().lower())
    if male is None:
        raise ValueError(f"{where}: the sex {text!r} is none of {', '.join(words)}")
    return male


def parse_covariates(id: str, row: Row, table: Table) -> tuple[float, ...]:
    """The covariates of a row; NaN for an empty cell, or none, since one may be unknown.

    Raises:
        ValueError: If one is no number.
    """
    cells = {name: row.cells.get(name, "") for name in table.covariates}
    return tuple(_parse_covariate(cell, f"id {id}, {name}") for name, cell in cells.items())


def _parse_covariate(text: str, where: str) -> float:
    if not text:
        return math.nan
    try:
        value = parse_number(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"{where}: {text!r} is not a number; leave it empty if it is unknown")
    return value


def find_columns(
    header: list[str],
    table: Table,
    needed: Sequence[str] = ("id", "age", "sex", "covariates", "patient", "part"),
) -> dict[str, str]:
    """Which column holds the id, the age and the sex, and where they are named, patient and part.

    Args:
        header: The names of the columns.
        table: What some of them are called.
        needed: What has to be there; what is not need not be.

    Raises:
        ValueError: If one that is needed is not there, or there are several, or one of them is a
            covariate too: a network that is told the age learns nothing else.
    """
    found: dict[str, str] = {}
    missing = []
    for meaning, spellings in _SPELLINGS.items():
        own = getattr(table, meaning)
        names = [
            name for name in header if (_letters(name) in spellings if own is None else name == own)
        ]
        if len(names) > 1:
            raise ValueError(f"more than one column for the {meaning} ({', '.join(names)})")
        if names:
            found[meaning] = names[0]
        elif meaning in needed:
            missing.append(meaning)
    for meaning in _OF_SPLIT:
        name = getattr(table, meaning)
        if name in header:
            found[meaning] = name
        elif name is not None and meaning in needed:
            missing.append(f"{meaning} {name}")
    if "covariates" in needed:
        missing += [f"covariate {name}" for name in table.covariates if name not in header]
    if missing:
        has = ", ".join(header) or "nothing"
        raise ValueError(f"no column for the {' or the '.join(missing)} (its header: {has})")
    for meaning, name in found.items():
        if name in table.covariates:
            raise ValueError(f"the covariate {name} is the column of the {meaning}")
    return found


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalpha())


def parse_rows(
    rows: Iterable[Row], column: str, parse: Callable[[str, Row], T]
) -> tuple[dict[str, T], list[str]]:
    """What rows say, by the ids in a column, and what is wrong with those that cannot be read.

    Args:
        rows: The rows.
        column: The column of the ids.
        parse: Reads an id's row, or raises a ValueError.
    """
    read: dict[str, T] = {}
    problems: list[str] = []
    known_rows: dict[str, int] = {}
    for row in rows:
        try:
            id = _parse_id(row, column, known_rows)
            read[id] = parse(id, row)
        except ValueError as error:
            problems.append(f"row {row.number}: {error}")
    return read, problems


def _parse_id(row: Row, column: str, known_rows: dict[str, int]) -> str:
    id = row.cells[column]
    if not id:
        raise ValueError("the id is empty")
    if id in known_rows:
        raise ValueError(f"id {id}: is in row {known_rows[id]} already; keep one of them")
    known_rows[id] = row.number
    return id


def _parse(
    id: str,
    row: Row,
    columns: Mapping[str, str],
    images: Mapping[str, list[Path]],
    table: Table,
) -> Radiograph:
    age, sex = row.cells[columns["age"]], row.cells[columns["sex"]]
    # Ids are only looked up among the files that are there, so none can lead out of the folder.
    paths = images.get(id, [])
    if not paths:
        raise ValueError(f"id {id}: no image of that name; add it, or remove the row")
    if len(paths) > 1:
        raise ValueError(f"id {id}: more than one image ({paths[0]}, {paths[1]}); keep one")
    unit = table.unit or "months"
    try:
        count, months_of_them = _MONTHS[unit]
        months = parse_number(age) * months_of_them / count
    except ValueError:
        months = math.nan
    if not math.isfinite(months):
        raise ValueError(f"id {id}: the age {age!r} is not a number of {unit}")
    male = parse_sex(sex, f"id {id}", sex_words(columns["sex"]))
    covariates = parse_covariates(id, row, table)
    patient, part = (row.cells[columns[name]] if name in columns else "" for name in _OF_SPLIT)
    if "patient" in columns and not patient:
        raise ValueError(f"id {id}: the patient is empty; name each one, also those shown once")
    if "part" in columns:
        part = _parse_part(part, f"id {id}")
    return Radiograph(id, months, male, paths[0], covariates, patient, part)


def _parse_part(text: str, where: str) -> str:
    part = _PARTS.get(text.lower())
    if part is None:
        raise ValueError(f"{where}: the part {text!r} is none of {', '.join(_PARTS)}")
    return part


def _check_age(radiograph: Radiograph, first: float, last: float) -> None:
    if not first <= radiograph.months <= last:
        raise ValueError(
            f"id {radiograph.id}: the age {radiograph.months:g} is outside of {first:g} to "
            f"{last:g} months; mend it, or change bins.first and bins.last"
        )
