"""Reading a radiograph from a DICOM file: its grey values, and nothing that names the patient."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from boneage.data.quiet import quiet
from boneage.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset

_MAGIC_AT, _MAGIC = 128, b"DICM"
_SEXES = {"M": True, "F": False}


class Film(NamedTuple):
    """Grey values (H, W) of one radiograph, and what its file says of it.

    A right hand is turned about, to look like the left ones that bone ages are read from:
    `mirrored` says so.
    """

    pixels: np.ndarray
    male: bool | None = None
    mirrored: bool = False


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, whatever it is called. Listings of others do not."""
    if path.name == "DICOMDIR":
        return False
    try:
        with open(path, "rb") as file:
            return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        return False


def read_dicom(path: Path) -> Film:
    """Read one grey image as it is to be shown: modality and VOI transforms, MONOCHROME1 inverted.

    Of several windows the first is taken. Pixels that pad the image become black.

    Returns:
        The film; its pixels are float32, in [0, 1] of what the file's bits can hold.

    Raises:
        UserError: If there is no single grey image in the file, or it is broken. The message tells
            nothing that the file says of the patient.
    """
    import pydicom

    # What they print may hold what the file says of a patient.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
        with quiet:
            header = pydicom.dcmread(path)
            problem = _problem(header)
            if problem:
                raise UserError(f"{path}: {problem}")
            pixels = _shown(header)
            right = "R" in (header.get("ImageLaterality"), header.get("Laterality"))
            return Film(
                pixels=np.ascontiguousarray(pixels[:, ::-1]) if right else pixels,
                male=_SEXES.get(header.get("PatientSex")),
                mirrored=right,
            )
    except UserError:
        raise
    except Exception as error:  # there is little that decoders do not raise on broken files
        raise UserError(
            f"{path}: this DICOM file cannot be read ({type(error).__name__}); export it again"
        ) from None


def _problem(header: Dataset) -> str | None:
    """Why the file is not one grey image, if it is not."""
    if "PixelData" not in header:
        return "a DICOM file without an image"
    if header.get("SamplesPerPixel", 1) != 1 or "PALETTE" in header.PhotometricInterpretation:
        return "a colour image; a radiograph is grey"
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        return f"{frames} frames; a radiograph is one image, so export one of them by itself"
    if header.Rows * header.Columns > (Image.MAX_IMAGE_PIXELS or np.inf):
        return f"{header.Columns}x{header.Rows} pixels are too many for a radiograph"
    return None


def _shown(header: Dataset) -> np.ndarray:
    """Grey values (H, W) in [0, 1], as a viewer would show them."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    bits, signed = int(header.BitsStored), bool(header.PixelRepresentation)
    stored = header.pixel_array
    if not signed:
        stored = stored & stored.dtype.type(2**bits - 1)  # older files keep drawings above them
    least = -(2 ** (bits - 1)) if signed else 0
    ends = np.array([[least, least + 2**bits - 1]]).astype(stored.dtype)
    shown, (bounds,) = (
        np.asarray(apply_voi_lut(apply_modality_lut(each, header), header, index=0), np.float32)
        for each in (stored, ends)
    )
    low, high = bounds.min(), bounds.max()
    grey: np.ndarray = np.clip((shown - low) / max(high - low, 1e-6), 0, 1)
    if header.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    if "PixelPaddingValue" in header:
        first = header.PixelPaddingValue
        last = header.get("PixelPaddingRangeLimit", first)
        grey[(stored >= min(first, last)) & (stored <= max(first, last))] = 0
    return grey
