"""Reading a radiograph from a file, and evening out its contrast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from boneage.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

# Radiographs are large, but no plate has 200 million pixels: beyond that a file is a trap.
Image.MAX_IMAGE_PIXELS = 200_000_000


def read_radiograph(path: Path) -> np.ndarray:
    """Read one radiograph as grey values in [0, 1].

    Args:
        path: A PNG, JPEG or TIFF file of 8 or 16 bits; colour is taken as grey.

    Returns:
        Array (H, W), float32, in [0, 1] of the file's full scale.

    Raises:
        UserError: If the file is missing, is no image, or is broken.
    """
    try:
        with Image.open(path) as image:
            wide = image.mode.startswith("I") or image.mode == "F"
            pixels = np.asarray(image if wide else image.convert("L"), dtype=np.float32)
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image that can be read (PNG, JPEG, TIFF)") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: broken image ({error}); export it again") from None
    if pixels.ndim != 2 or min(pixels.shape) < 8 or not np.isfinite(pixels).all():
        raise UserError(f"{path}: expected a finite grey image of at least 8x8 pixels")
    full_scale = 65535.0 if wide and pixels.max() > 255 else 255.0
    return np.clip(pixels / np.float32(full_scale), 0, 1)


def even_contrast(image: np.ndarray, how: str) -> np.ndarray:
    """Stretch a radiograph's contrast so that films of any exposure look alike.

    Args:
        image: Array (H, W), float32.
        how: `"none"`; `"percentile"`, which maps the 2nd and 98th percentile to 0 and 1; or
            `"local"`, which removes each neighbourhood's mean and scales by its deviation, so
            that dim films and bright plate borders weigh no more than the bones.

    Returns:
        Array (H, W), float32, in [0, 1]. A constant image becomes constant, never NaN.
    """
    if how == "none":
        return np.clip(image, 0, 1)
    if how == "percentile":
        low, high = np.percentile(image[:: _step(image), :: _step(image)], (2, 98))
        return np.clip((image - low) / max(high - low, 1e-3), 0, 1).astype(np.float32)
    if how == "local":
        return _even_locally(image)
    raise ValueError(f"how: expected 'none', 'percentile' or 'local', got {how!r}")


def _even_locally(image: np.ndarray) -> np.ndarray:
    # The statistics are smooth, so they are taken on a small copy (about 100 pixels a side).
    step = _step(image, 100)
    small = ndimage.uniform_filter(image, step)[::step, ::step] if step > 1 else image
    radius = max(small.shape) * 0.12
    mean = ndimage.gaussian_filter(small, radius)
    deviation = np.sqrt(ndimage.gaussian_filter((small - mean) ** 2, radius * 5 / 3))
    if step > 1:
        mean, deviation = (_enlarge(part, image.shape, step) for part in (mean, deviation))
    return np.clip(0.5 + 0.2 * (image - mean) / (deviation + 0.016), 0, 1).astype(np.float32)


def _enlarge(part: np.ndarray, shape: tuple[int, ...], step: int) -> np.ndarray:
    grid = Image.fromarray(part.astype(np.float32))
    box = (0, 0, shape[1] / step, shape[0] / step)
    return np.asarray(grid.resize(shape[::-1], Image.Resampling.BILINEAR, box=box))


def _step(image: np.ndarray, side: int = 400) -> int:
    return max(1, max(image.shape) // side)
