"""Several regions of one map: the others than the largest, which test_levelsets looks after."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor
from torch.autograd import gradcheck

from ldlcam.cam import levelset_boxes, levelset_components
from tests.cam.maps import bumps, fractions, random_maps, seeds, sides, stepped_maps
from tests.cam.oracles import dense_mask


def dense_components(
    heatmap: Tensor, threshold: float, size: tuple[int, int]
) -> tuple[list[int], list[tuple[int, int, int, int]]]:
    """Pixel counts and boxes of all 8-connected components, the largest first."""
    labels, count = ndimage.label(dense_mask(heatmap, threshold, size), np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    # scipy numbers components in reading order, and a stable sort keeps it.
    order = np.argsort(-areas, kind="stable")
    boxes = [(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in ndimage.find_objects(labels)]
    assert len(boxes) == count
    return areas[order].tolist(), [boxes[i] for i in order]


@given(
    st.sampled_from([2, 4, 8, 16]), st.sampled_from([2, 4, 8, 16]), st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([0.25, 0.5, 0.75, 0.875, 1.0]), st.integers(1, 6), seeds,
)  # fmt: skip
def test_snapped_components_are_the_dense_ones(
    height: int, width: int, scale: int, threshold: float, k: int, seed: int
) -> None:
    """With whole numbers and powers of two nothing is rounded, and many components are equal."""
    maps = stepped_maps(3, height, width, seed)
    maps = maps[maps.flatten(1).amin(1) < 8]
    size = (height * scale, width * scale)
    boxes, valid = levelset_components(maps, threshold, size, k, snap=True)
    assert boxes.shape == (len(maps), k, 4)
    for heatmap, row, found in zip(maps, boxes, valid, strict=True):
        _, expected = dense_components(heatmap, threshold, size)
        count = min(k, len(expected))
        assert found.tolist() == [True] * count + [False] * (k - count)
        assert row[:count].tolist() == [list(map(float, box)) for box in expected[:count]]
        assert not row[count:].any()


@pytest.mark.parametrize("kind", ["smooth", "rough"])
def test_surface_components_are_those_of_fine_pixels(kind: str) -> None:
    maps = random_maps(kind, 12, 6, 7, 3)
    boxes, valid = levelset_components(maps, 0.35, (1200, 1400), 4)
    compared = 0
    for heatmap, row, found in zip(maps, boxes, valid, strict=True):
        areas, expected = dense_components(heatmap, 0.35, (1200, 1400))
        # Areas that pixels tell apart, and no components smaller than a few pixels.
        clear = all(a > 1.02 * b for a, b in itertools.pairwise(areas))
        if clear and areas[-1] > 200:
            count = min(4, len(areas))
            assert found.tolist() == [True] * count + [False] * (4 - count)
            near = torch.tensor(expected[:count]).float()
            # Corners end in tips thinner than a pixel.
            torch.testing.assert_close(row[:count], near, atol=4.0, rtol=0)
            compared += 1
    assert compared >= 6


@pytest.mark.parametrize("snap", [True, False])
@given(sides, sides, fractions, seeds)
def test_the_first_is_the_largest(
    snap: bool, height: int, width: int, threshold: float, seed: int
) -> None:
    maps = random_maps("rough", 3, height, width, seed)
    first = levelset_boxes(maps, threshold, (50, 40), snap=snap)
    several = levelset_components(maps, threshold, (50, 40), 3, snap=snap)
    assert torch.equal(several.boxes[:, 0], first.boxes)
    assert torch.equal(several.valid[:, 0], first.valid)


@pytest.mark.parametrize("snap", [True, False])
def test_bumps_come_in_the_order_of_their_size(snap: bool) -> None:
    centers = torch.tensor([[[3.0, 3.0], [3.0, 16.0], [15.0, 9.0]]])
    widths, heights = torch.tensor([[1.0, 2.2, 1.6]]), torch.ones(1, 3)
    maps = bumps(centers, widths, heights, (20, 20))
    boxes, valid = levelset_components(maps, 0.5, (200, 200), 4, snap=snap)
    assert valid.tolist() == [[True, True, True, False]]
    middles = (boxes[0, :3, :2] + boxes[0, :3, 2:]) / 2
    expected = 10 * (centers[0, [1, 2, 0]].flip(1) + 0.5)
    torch.testing.assert_close(middles.float(), expected, atol=1.0, rtol=0)


@pytest.mark.parametrize("snap", [True, False])
def test_degenerate_maps_have_none_and_leave_the_others_alone(snap: bool) -> None:
    good = random_maps("smooth", 1, 6, 7, 0)
    bad = torch.stack([torch.zeros(6, 7), -good[0].abs(), torch.full((6, 7), torch.nan)])
    boxes, valid = levelset_components(torch.cat((bad, good)), 0.4, (60, 70), 2, snap=snap)
    assert not valid[:3].any()
    assert not boxes[:3].any()
    alone = levelset_components(good, 0.4, (60, 70), 2, snap=snap)
    assert torch.equal(boxes[3:], alone.boxes)
    empty = levelset_components(good[:0], 0.4, (60, 70), 2, snap=snap)
    assert empty.boxes.shape == (0, 2, 4)


def test_gradients() -> None:
    centers = torch.tensor([[[2.0, 2.0], [5.0, 6.0]]])
    maps = bumps(centers, torch.tensor([[1.0, 1.4]]), torch.ones(1, 2), (8, 9)).requires_grad_()
    threshold = torch.tensor([0.47], dtype=torch.float64, requires_grad=True)

    def boxes(maps: Tensor, threshold: Tensor) -> Tensor:
        found = levelset_components(maps, threshold, (80, 90), 3)
        assert found.valid.tolist() == [[True, True, False]]
        return found.boxes

    assert gradcheck(boxes, (maps, threshold))


@pytest.mark.parametrize("snap", [True, False])
def test_device(device: torch.device, snap: bool) -> None:
    maps = torch.rand(3, 6, 7, device=device)
    regions = levelset_components(maps, 0.5, (60, 70), 2, snap=snap)
    assert regions.boxes.shape == (3, 2, 4)
    assert regions.valid.shape == (3, 2)
    assert regions.boxes.device.type == regions.valid.device.type == device.type


@pytest.mark.parametrize("k", [0, -1])
def test_errors(k: int) -> None:
    with pytest.raises(ValueError, match=f"k: expected an integer of at least 1, got {k}"):
        levelset_components(torch.rand(1, 3, 3), 0.5, (9, 9), k)
