from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from ldlcam.cam.patches import (
    Corners,
    corner_areas,
    crossing_shift,
    crossing_steps,
    patch_corners,
    pixels_joined,
    surface_joined,
)

within, beyond = st.integers(0, 6), st.integers(-6, -1)
steps = st.integers(1, 9)


def single(*values: float) -> Corners:
    return Corners(*(torch.tensor([[[float(value)]]]) for value in values))


@given(st.integers(0, 40), st.integers(-40, -1), st.integers(0, 300))
def test_steps_are_exact(inner: int, outer: int, distance: int) -> None:
    exact = Fraction(inner, inner - outer) * distance
    found = crossing_steps(*(torch.tensor(float(v)) for v in (inner, outer, distance)))
    # Pixels at the threshold itself count; the outer one, by definition, does not.
    assert found == exact.__floor__()
    shift = crossing_shift(*(torch.tensor(float(v)) for v in (inner, outer, distance)))
    assert float(shift) == pytest.approx(float(exact), rel=1e-6)


def test_other_pairs_do_not_cross() -> None:
    pairs = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [-1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    distance = torch.full((4,), 10.0)
    shifts = crossing_shift(pairs[:, 0], pairs[:, 1], distance)
    assert shifts.tolist() == [0, 0, 0, 0]
    assert crossing_steps(pairs[:, 0], pairs[:, 1], distance).tolist() == [0, 0, 0, 0]
    shifts.sum().backward()
    assert pairs.grad is not None
    assert (pairs.grad == 0).all()


@settings(max_examples=400)
@given(within, beyond, beyond, within, steps, steps)
def test_pixels_joined(tl: int, tr: int, bl: int, br: int, height: int, width: int) -> None:
    """Against labelled pixels, in whole numbers, so that ties are exact."""
    y, x = np.arange(height + 1)[:, None], np.arange(width + 1)
    grid = (height - y) * ((width - x) * tl + x * tr) + y * ((width - x) * bl + x * br)
    labels, _ = ndimage.label(grid >= 0, np.ones((3, 3)))
    expected = labels[0, 0] == labels[-1, -1]
    distances = torch.tensor(float(height)), torch.tensor(float(width))
    assert bool(pixels_joined(single(tl, tr, bl, br), *distances)) == expected
    mirrored = single(tr, tl, br, bl).mirrored()
    assert bool(pixels_joined(mirrored, *distances)) == expected
    assert bool(pixels_joined(single(br, bl, tr, tl), *distances)) == expected


@example(1, -1, -1, 1)
@example(2, -1, -4, 2)
@given(within, beyond, beyond, within)
def test_surface_joined(tl: int, tr: int, bl: int, br: int) -> None:
    saddle = Fraction(tl * br - tr * bl, tl + br - tr - bl)
    assert bool(surface_joined(single(tl, tr, bl, br))) == (saddle >= 0)


def test_a_fine_grid_joins_as_the_surface_does() -> None:
    corners = torch.rand(500, 2, 2, dtype=torch.float64)
    corners[:, 0, 1] *= -1
    corners[:, 1, 0] *= -1
    views = patch_corners(corners)
    distance = torch.tensor(100_000.0, dtype=torch.float64)
    assert torch.equal(surface_joined(views), pixels_joined(views, distance, distance))


def counted(corners: Tensor, side: int = 600) -> tuple[float, int, np.ndarray]:
    """Area by counting points of the bilinear patch, and the labels of its components."""
    place = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    upper = corners[0, 0] + (corners[0, 1] - corners[0, 0]) * place
    lower = corners[1, 0] + (corners[1, 1] - corners[1, 0]) * place
    inside = (upper + (lower - upper) * place[:, None] >= 0).numpy()
    labels, count = ndimage.label(inside)
    return float(inside.mean()), count, labels


@pytest.mark.parametrize("pattern", range(16))
def test_areas_are_those_counted(pattern: int) -> None:
    """Every combination of corners inside and outside."""
    signs = torch.tensor([1.0 if pattern >> bit & 1 else -1.0 for bit in range(4)]).view(2, 2)
    corners = (torch.rand(12, 2, 2) + 0.02).double() * signs
    areas = corner_areas(corners)
    assert areas.shape == (4, 12, 1, 1)
    assert (areas >= 0).all()
    within = corners.flatten(1).T.reshape(4, 12, 1, 1) >= 0
    assert (areas[~within] == 0).all()
    for patch, shares in zip(corners, areas.flatten(1).T, strict=True):
        total, count, labels = counted(patch)
        assert float(shares.sum()) == pytest.approx(total, abs=2e-3)
        if count == 2:  # opposite corners apart: each has its own area
            ends = [labels[0, 0], labels[0, -1], labels[-1, 0], labels[-1, -1]]
            for share, label in zip(shares, ends, strict=True):
                if label:
                    assert float(share) == pytest.approx((labels == label).mean(), abs=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e-12])
def test_areas_of_flat_and_thin_patches(dtype: torch.dtype, scale: float) -> None:
    plane = torch.tensor([[1.0, -1.0], [1.0, -1.0]], dtype=dtype)
    assert float(corner_areas(plane[None] * scale).sum()) == pytest.approx(0.5)
    corner = torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=dtype)
    tilted = corner - 0.5
    assert float(corner_areas(tilted[None] * scale).sum()) == pytest.approx(0.125)
    touching = torch.tensor([[0.0, -1.0], [-1.0, -1.0]], dtype=dtype)
    assert float(corner_areas(touching[None] * scale).sum()) == 0
    steep = torch.tensor([[1.0, -scale], [-scale, 1.0]], dtype=dtype)
    assert 0.5 <= float(corner_areas(steep[None]).sum()) <= 1


@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e-30, -1e-30, 1e-7, -1e4]), min_size=4, max_size=4)
)
def test_areas_are_never_nan(values: list[float]) -> None:
    areas = corner_areas(torch.tensor(values).view(1, 2, 2))
    assert areas.isfinite().all()
    assert -1e-6 <= float(areas.sum()) <= 1 + 1e-6
