"""Reading a radiograph from a file, and evening out its contrast."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from boneage.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

# Only these decoders see the files: others, such as PostScript's, would run what is in them.
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
        images += (path for path in files if path.suffix.lower() in SUFFIXES)
    return sorted(images)


def read_radiograph(path: Path) -> np.ndarray:
    """Read one radiograph as grey values in [0, 1].

    Args:
        path: A PNG, JPEG or TIFF file of 8 or 16 bits, or a TIFF file of floats in [0, 1].
            Colour is taken as grey, what is transparent as black.

    Returns:
        Array (H, W), float32, in [0, 1] of the full scale of the file's mode.

    Raises:
        UserError: If the file is missing, is no image, or is broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Not by its path: Pillow would map an uncompressed TIFF and confuse one on its side.
            with open(path, "rb") as file, Image.open(file, formats=_FORMATS) as image:
                ImageOps.exif_transpose(image, in_place=True)
                pixels = _grey(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image in PNG, JPEG or TIFF; export it again") from None
    except Exception as error:  # there is little that decoders do not raise on broken files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}); export it again") from None
    if min(pixels.shape) < _LEAST_SIDE:
        height, width = pixels.shape
        raise UserError(f"{path}: {width}x{height} pixels are too few for a radiograph")
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN fails both
        raise UserError(
            f"{path}: has grey values beyond the scale (0 to 65535, or 0 to 1 for floats); "
            "export it with 8 or 16 bits"
        )
    return pixels


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
    return np.asarray(image.convert("L")) / np.float32(255)


def even_contrast(image: np.ndarray, how: str) -> np.ndarray:
    """Stretch a radiograph's contrast so that films of any exposure look alike.

    Args:
        image: Array (H, W), float32.
        how: `"none"`; `"percentile"`, which maps the 2nd and 98th percentile to 0 and 1; or
            `"local"`, which removes each neighbourhood's mean and scales by its deviation, so
            that dim films and bright plate borders weigh no more than the bones.

    Returns:
        Array (H, W), float32, in [0, 1]. But for `"none"`, it is the same for any gain and offset
        of the image. A constant image becomes constant, never NaN.
    """
    if how == "none":
        return np.clip(image, 0, 1)
    if how not in ("percentile", "local"):
        raise ValueError(f"how: expected 'none', 'percentile' or 'local', got {how!r}")
    low, high = _range(image)
    if low == high:
        return np.full_like(image, 0.5)
    if how == "percentile":
        return np.clip((image - low) / (high - low), 0, 1)
    return _even_locally(image, high - low)


def _range(image: np.ndarray) -> tuple[float, float]:
    """From dark to bright without the outermost 2%, or all of it where the rest is constant."""
    step = _step(image, 400)
    low, high = np.percentile(image[::step, ::step], (2, 98))
    if low == high:
        low, high = image.min(), image.max()
    return float(low), float(high)


def _even_locally(image: np.ndarray, span: float) -> np.ndarray:
    from scipy import ndimage

    # The statistics are smooth, so they are taken on a small copy (about 100 pixels a side).
    step = _step(image, 100)
    small = np.asarray(Image.fromarray(image).reduce(step)) if step > 1 else image
    radius = max(small.shape) * 0.12
    mean = ndimage.gaussian_filter(small, radius)
    deviation = np.sqrt(ndimage.gaussian_filter((small - mean) ** 2, radius * 5 / 3))
    if step > 1:
        mean, deviation = (_enlarge(part, image.shape, step) for part in (mean, deviation))
    # The floor keeps the noise of empty areas down: about four of 255 greys on a usual film.
    return np.clip(0.5 + 0.2 * (image - mean) / (deviation + 0.025 * span), 0, 1)


def _enlarge(part: np.ndarray, shape: tuple[int, ...], step: int) -> np.ndarray:
    grid = Image.fromarray(part)
    box = (0, 0, shape[1] / step, shape[0] / step)
    return np.asarray(grid.resize(shape[::-1], Image.Resampling.BILINEAR, box=box))


def _step(image: np.ndarray, side: int) -> int:
    return max(1, max(image.shape) // side)
