"""Finding the images of a folder, and reading a radiograph from a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from boneage.data.dicom import Film, is_dicom, read_dicom
from boneage.data.quiet import quiet
from boneage.errors import UserError

FORMATS = "PNG, JPEG, TIFF or DICOM"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")

# Only these of Pillow's decoders see the files: others, such as PostScript's, would run what is in
# them.
_FORMATS = ("PNG", "JPEG", "TIFF")
_LEAST_SIDE = 8
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a TIFF tag, and its value for inverted grey values


def image_files(folder: Path) -> list[Path]:
    """Every image in a folder or below it, sorted. Hidden names are left out, links are followed.

    Raises:
        UserError: If a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})")

    images: list[Path] = []
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if os.path.realpath(parent) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        files = (Path(parent, name) for name in names if not name.startswith("."))
        images += (path for path in files if has_image_suffix(path) or is_dicom(path))
    return sorted(images)


def has_image_suffix(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix.lower() in _SUFFIXES


def image_name(path: Path) -> str:
    """The name without its suffix; all of it for DICOM files that are named by numbers and dots."""
    return path.stem if has_image_suffix(path) else path.name


def read_radiograph(path: Path) -> np.ndarray:
    """The grey values (H, W) of one radiograph: see `read_film`."""
    return read_film(path).pixels


def read_film(path: Path) -> Film:
    """Read one radiograph, with what its file says of it.

    Args:
        path: A PNG, JPEG or TIFF file of 8 or 16 bits, a TIFF file of floats in [0, 1], or a DICOM
            file of one grey image. Colour is taken as grey, what is transparent as black.

    Returns:
        The film; its pixels (H, W) are float32, in [0, 1] of the full scale of the file's mode.

    Raises:
        UserError: If the file is missing, is no image, or is broken.
    """
    film = read_dicom(path) if is_dicom(path) else Film(_read_picture(path))
    pixels = film.pixels
    if min(pixels.shape) < _LEAST_SIDE:
        height, width = pixels.shape
        raise UserError(f"{path}: {width}x{height} pixels are too few for a radiograph")
    if pixels.dtype == np.uint8:  # which cannot hold what is beyond their scale
        return film._replace(pixels=pixels / np.float32(255))
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN fails both
        raise UserError(
            f"{path}: has grey values beyond the scale (0 to 65535, or 0 to 1 for floats); "
            "export it with 8 or 16 bits"
        )
    return film


def _read_picture(path: Path) -> np.ndarray:
    """Grey values (H, W) of a PNG, JPEG or TIFF file: uint8, or float32 in [0, 1]."""
    try:
        # Not by its path: Pillow would map an uncompressed TIFF and confuse one on its side.
        with quiet, open(path, "rb") as file, Image.open(file, formats=_FORMATS) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return _grey(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image in {FORMATS}; export it again") from None
    except Exception as error:  # there is little that decoders do not raise on broken files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}); export it again") from None


def _grey(image: Image.Image) -> np.ndarray:
    """Grey values; the mode says their full scale, so that a dim image stays as dim as it is."""
    if image.mode == "F":
        return np.array(image, dtype=np.float32)
    if image.mode.startswith("I"):
        pixels = np.array(image, dtype=np.float32) / 65535
        tags = getattr(image, "tag_v2", {})
        # Pillow turns these round for 8 bits only.
        return 1 - pixels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else pixels
    if image.has_transparency_data:
        grey, alpha = (np.asarray(band) for band in image.convert("RGBA").convert("LA").split())
        return grey * (alpha / np.float32(255 * 255))
    return np.asarray(image.convert("L"))
