"""Files with random damage: each is read, or refused in one message; nothing else ever happens."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from conftest import HEADER, PATIENT, dicom, noise, write_dicom
from PIL import Image
from pydicom.uid import RLELossless

from boneage.data.boxes import read_boxes
from boneage.data.dicom import Film
from boneage.data.images import read_film
from boneage.data.tables import read_table
from boneage.errors import UserError

FEW = 60


def _picture(kind: str, mode: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(3, 40, 30)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def _dicom(tmp_path: Path, *, packed: bool) -> bytes:
    data = dicom(
        noise(3, 40, 30).astype(np.uint16), WindowCenter=90, WindowWidth=80, PatientSex="F"
    )
    if packed:
        data.compress(RLELossless)
    return write_dicom(data, tmp_path / "seed.dcm").read_bytes()


def _sheet() -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    for row in (HEADER.split(","), (1, 12, True), (2, 30.5, False)):
        book.active.append(row)
    book.save(buffer)
    return buffer.getvalue()


SEEDS: dict[str, Callable[[Path], bytes]] = {
    "a.png": lambda _: _picture("PNG", "L"),
    "deep.png": lambda _: _picture("PNG", "I;16"),
    "alpha.png": lambda _: _picture("PNG", "LA"),
    "a.jpg": lambda _: _picture("JPEG", "RGB"),
    "a.tif": lambda _: _picture("TIFF", "L"),
    "packed.tif": lambda _: _picture("TIFF", "L", compression="tiff_lzw"),
    "a.dcm": lambda folder: _dicom(folder, packed=False),
    "packed.dcm": lambda folder: _dicom(folder, packed=True),
}
TABLES: dict[str, Callable[[], bytes]] = {
    "a.csv": lambda: f"{HEADER}\n1,12,True\n2,30.5,False\n".encode("utf-8-sig"),
    "b.csv": lambda: b"Case ID;Sex;Bone Age (months)\n1;M;12,5\n2;F;30\n",
    "a.xlsx": _sheet,
}


def _damaged(content: bytes, random: np.random.Generator) -> bytes:
    """A file with bytes changed, cut out, doubled or cut off."""
    data = bytearray(content)
    for _ in range(random.integers(1, 6)):
        at = int(random.integers(len(data) + 1))
        until = min(len(data), at + int(random.integers(1, 40)))
        way = random.integers(5)
        if way == 0:
            data[at:until] = random.bytes(until - at)
        elif way == 1:
            del data[at:until]
        elif way == 2:
            data[at:at] = data[at:until]
        elif way == 3 and at < len(data):
            data[at] ^= 1 << int(random.integers(8))
        elif way == 4 and random.random() < 0.3:
            del data[at:]
    return bytes(data)


def _read_or_refuse(read: Callable[[], object]) -> object | None:
    """What was read, or None; any other error than ours fails the test."""
    try:
        return read()
    except UserError as error:
        message = str(error)
    assert message
    assert PATIENT not in message
    return None


def _images(tmp_path: Path, name: str, count: int, seed: int) -> None:
    content, path = SEEDS[name](tmp_path), tmp_path / name
    path.write_bytes(content)
    assert isinstance(_read_or_refuse(lambda: read_film(path)), Film)
    random, refused = np.random.default_rng(seed), 0
    for _ in range(count):
        path.write_bytes(_damaged(content, random))
        film = _read_or_refuse(lambda: read_film(path))
        if isinstance(film, Film):
            assert film.pixels.ndim == 2
            assert np.isfinite(film.pixels).all()
        refused += film is None
    # Some damage is not to be seen, and some is.
    assert refused > 0.05 * count


def _tables(tmp_path: Path, name: str, count: int, seed: int) -> None:
    for id in ("1", "2"):
        (tmp_path / f"{id}.png").write_bytes(_picture("PNG", "L"))
    content, path = TABLES[name](), tmp_path / name
    path.write_bytes(content)
    assert _read_or_refuse(lambda: read_table(tmp_path, first=1, last=240))
    random = np.random.default_rng(seed)
    for _ in range(count):
        path.write_bytes(_damaged(content, random))
        _read_or_refuse(lambda: read_table(tmp_path, first=1, last=240))
        _read_or_refuse(lambda: read_boxes(path))


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_images(tmp_path: Path, name: str) -> None:
    _images(tmp_path, name, FEW, seed=0)


@pytest.mark.parametrize("name", TABLES)
def test_damaged_tables(tmp_path: Path, name: str) -> None:
    _tables(tmp_path, name, FEW, seed=0)


@pytest.mark.long
@pytest.mark.parametrize("name", SEEDS)
def test_many_damaged_images(tmp_path: Path, name: str) -> None:
    _images(tmp_path, name, 1000, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("name", TABLES)
def test_many_damaged_tables(tmp_path: Path, name: str) -> None:
    _tables(tmp_path, name, 700, seed=1)
