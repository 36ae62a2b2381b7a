"""Pictures for a page that stands alone: PNG files as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

_HEAT_SIDE = 96
_HEAT_OPACITY = 0.8
_COLOURS = 256


def drawn_picture(png: bytes) -> str:
    """A drawing as a picture of a palette of colours, which makes it a third as large."""
    palette = Image.open(io.BytesIO(png)).quantize(_COLOURS, Image.Quantize.FASTOCTREE)
    return _encode(palette)


def grey_picture(pixels: np.ndarray, longest: int = 256) -> str:
    """Grey values (H, W) uint8 as a picture of at most so many pixels a side."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((longest, longest), Image.Resampling.BOX)
    return _encode(image)


def heat_picture(heatmap: np.ndarray) -> str:
    """A heat map (h, w) in [0, 1] in colours, to be laid over its image: cold places are clear."""
    import matplotlib

    small = Image.fromarray(np.ascontiguousarray(heatmap, dtype=np.float32))
    heat = np.asarray(small.resize((_HEAT_SIDE, _HEAT_SIDE), Image.Resampling.BILINEAR))
    colours = matplotlib.colormaps["inferno"](heat, bytes=True)
    colours[..., 3] = np.round(255 * _HEAT_OPACITY * np.sqrt(np.clip(heat, 0, 1)))
    return _encode(Image.fromarray(colours))


def _encode(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
