"""What the tests of the data share: small data sets in any layout, and disks that are full."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from rich.console import Console

from boneage.config import Config, load_config
from boneage.pipeline import run

if TYPE_CHECKING:
    from report_run import Run

settings.register_profile("boneage", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("boneage")

HEADER = "id,boneage,male"
IMAGES = "boneage-training-dataset"
TABLE = "boneage-training-dataset.csv"
PATIENT = "Doe^Jane"


def search_path(first: Path) -> str:
    """Where a started Python looks for modules: in that folder, then where this one was told to."""
    return os.pathsep.join([str(first), *filter(None, [os.environ.get("PYTHONPATH")])])


def noise(seed: int, height: int = 24, width: int = 18) -> np.ndarray:
    """A radiograph's stand-in (H, W) uint8 that no other seed has."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def write_image(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_images(folder: Path, names: Iterable[str]) -> list[Path]:
    return [
        write_image(folder / f"{name}.png", noise(seed)) for seed, name in enumerate(names, start=1)
    ]


def dicom(pixels: np.ndarray, *, bits: int = 12, **tags: object) -> Dataset:
    """A computed radiography image that holds the pixels as they are."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID = PATIENT, "4711"
    data.Rows, data.Columns = pixels.shape[-2:] if pixels.ndim < 4 else pixels.shape[1:3]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * pixels.itemsize, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def write_dicom(data: Dataset, path: Path) -> Path:
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def data_set(tmp_path: Path) -> Callable[..., Path]:
    """Makes a data set's folder from the rows of its table, an image for each id in them."""

    def make(
        *rows: str,
        header: str = HEADER,
        table: str = TABLE,
        images: str = IMAGES,
        names: Iterable[str] | None = None,
        encoding: str = "utf-8",
    ) -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        if names is None:
            names = dict.fromkeys(row.split(",")[0].strip() for row in rows)
        write_images(folder / images, [name for name in names if name])
        (folder / table).write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
        return folder

    return make


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes the disk full for the next file written under a name: the kernel itself says so."""
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full to act as a full disk")

    def fill(path: Path) -> None:
        monkeypatch.setattr(secrets, "token_hex", lambda count: "full")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".draft-full{path.suffix}").symlink_to("/dev/full")

    return fill


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    from report_run import make_run

    return make_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A data set without annotated boxes and, being no phantom, without floors."""
    from report_run import make_run

    return make_run(tmp_path_factory.mktemp("plain"), boxed=False, data=Path("/nowhere/hands"))


@pytest.fixture(scope="session")
def corrected_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose distributions are corrected, with conformal intervals and an ensemble."""
    from report_run import make_run

    reading = "{temperature: true, bias: true, conformal: true, ensembles: {E: [O, H+R1+R2]}}"
    return make_run(tmp_path_factory.mktemp("corrected"), changes=(f"reading={reading}",))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of everything else: figures take most of the time."""
    from boneage.report import drawing

    monkeypatch.setattr(drawing, "_render", lambda make, ink, size: "data:,")


@pytest.fixture(scope="session")
def smoke() -> Config:
    return load_config("smoke")


@pytest.fixture(scope="session")
def finished(smoke: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run at the smallest size; tests that write into one copy it."""
    folder = tmp_path_factory.mktemp("run") / "smoke"
    run(smoke, folder, Console(quiet=True))
    return folder


def left_in(folder: Path) -> list[str]:
    """Names of everything in a folder, hidden files too."""
    return sorted(os.listdir(folder))
