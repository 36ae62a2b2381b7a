"""Heat maps to try things on."""

import numpy as np
import torch
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

KINDS = ("smooth", "rough")


def random_maps(kind: str, count: int, height: int, width: int, seed: int) -> Tensor:
    """Seeded random maps, (N, h, w) float32: white noise, or the same blurred."""
    noise = np.random.default_rng(seed).standard_normal((count, height, width))
    if kind == "smooth":
        noise = ndimage.gaussian_filter(noise, (0, 1.5, 1.5))
    return torch.from_numpy(noise.astype(np.float32))


def stepped_maps(count: int, height: int, width: int, seed: int) -> Tensor:
    """Maps of small whole numbers with a maximum of 8: full of plateaus and exact ties."""
    steps = np.random.default_rng(seed).integers(0, 9, (count, height, width))
    steps[:, 0, 0] = 8
    return torch.from_numpy(steps.astype(np.float32))


def bumps(centers: Tensor, widths: Tensor, heights: Tensor, size: tuple[int, int]) -> Tensor:
    """Sums of Gaussian bumps, (N, h, w) float64; centres (N, K, 2) and widths in cells, as y, x."""
    y = torch.arange(size[0], dtype=torch.float64)[:, None]
    x = torch.arange(size[1], dtype=torch.float64)
    squares = (y - centers[..., :1, None]) ** 2 + (x - centers[..., 1:, None]) ** 2
    return (heights[..., None, None] * (-squares / (2 * widths[..., None, None] ** 2)).exp()).sum(1)


def spiral(size: int) -> Tensor:
    """A path one cell wide that winds inwards, with walls one cell wide, (size, size) bool."""
    path = np.zeros((size, size), dtype=bool)
    row, column, down, across = 0, 0, 0, 1
    path[0, 0] = True
    turns = 0
    while turns < 2:
        ahead = (row + 2 * down, column + 2 * across)
        within = 0 <= ahead[0] < size and 0 <= ahead[1] < size
        edge = 0 <= row + down < size and 0 <= column + across < size
        if edge and not (within and path[ahead]) and not path[row + down, column + across]:
            row, column, turns = row + down, column + across, 0
            path[row, column] = True
        else:
            down, across, turns = across, -down, turns + 1
    return torch.from_numpy(path)


def serpentine(height: int, width: int) -> Tensor:
    """A path one cell wide that runs to and fro, (height, width) bool."""
    path = torch.zeros(height, width, dtype=torch.bool)
    path[::2] = True
    path[1::4, -1] = True
    path[3::4, 0] = True
    return path


sides = st.integers(1, 12)
lengths = st.integers(1, 70)
seeds = st.integers(0, 2**32 - 1)
fractions = st.floats(0.02, 1.0, allow_nan=False)
