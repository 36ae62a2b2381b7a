"""Evening out the contrast of radiographs."""

from __future__ import annotations

import numpy as np
from PIL import Image


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
        return image.clip(0, 1)
    if how not in ("percentile", "local"):
        raise ValueError(f"how: expected 'none', 'percentile' or 'local', got {how!r}")
    low, high = _range(image)
    if low == high:
        return np.full_like(image, 0.5)
    if how == "percentile":
        even: np.ndarray = image - low
        even /= high - low
        return np.clip(even, 0, 1, out=even)
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
    # 0.5 + 0.2 (image - mean) / (deviation + 0.025 span), in place: new arrays of a film's size
    # cost more than what is computed in them. The floor keeps the noise of empty areas down: about
    # four of 255 greys on a usual film.
    deviation += 0.025 * span
    even: np.ndarray = np.subtract(image, mean, out=mean)
    even *= 0.2
    even /= deviation
    even += 0.5
    return np.clip(even, 0, 1, out=even)


def _enlarge(part: np.ndarray, shape: tuple[int, ...], step: int) -> np.ndarray:
    grid = Image.fromarray(part)
    height, width = shape
    box = (0, 0, width / step, height / step)
    return np.array(grid.resize((width, height), Image.Resampling.BILINEAR, box=box))


def _step(image: np.ndarray, side: int) -> int:
    longer: int = max(image.shape)
    return max(1, longer // side)
