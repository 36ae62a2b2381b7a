import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from ldlcam.cam.components import label_components, label_mask
from tests.cam.maps import seeds, serpentine, sides, spiral


def first_pixels(mask: Tensor) -> Tensor:
    """The index of each component's first pixel at its pixels, by scipy."""
    labels, count = ndimage.label(mask.numpy(), np.ones((3, 3)))
    expected = np.arange(mask.numel()).reshape(mask.shape)
    for label in range(1, count + 1):
        expected[labels == label] = np.flatnonzero(labels == label)[0]
    return torch.from_numpy(expected)


@given(sides, sides, st.floats(0, 1), seeds)
def test_random_masks(height: int, width: int, density: float, seed: int) -> None:
    draws = np.random.default_rng(seed).random((2, height, width))
    masks = torch.from_numpy(draws < density)
    labels = label_mask(masks)
    for mask, found in zip(masks, labels, strict=True):
        assert torch.equal(found, first_pixels(mask))


@pytest.mark.parametrize(
    "mask",
    [spiral(41), spiral(41).flip(0), spiral(64), serpentine(41, 37), serpentine(37, 41).mT],
    ids=["spiral", "flipped", "large spiral", "serpentine", "upright"],
)
def test_long_paths(mask: Tensor) -> None:
    ends = ndimage.label(mask.numpy(), np.ones((3, 3)))[1]
    assert ends == 1  # the path is one component, and long
    assert mask.sum() > 0.45 * mask.numel()
    labels = label_mask(mask.unsqueeze(0))[0]
    assert torch.equal(labels, first_pixels(mask))
    assert labels[mask].unique().numel() == 1


def test_two_spirals_apart() -> None:
    """Where the walls of a spiral are a path too, the two stay apart."""
    walls = ~spiral(33)
    with_walls = torch.stack((spiral(33), walls))
    labels = label_mask(with_walls)
    assert torch.equal(labels[0], first_pixels(spiral(33)))
    assert torch.equal(labels[1], first_pixels(walls))


@given(st.permutations(range(39)))
def test_a_path_through_shuffled_columns(order: list[int]) -> None:
    """Joins are taken as given, not from the neighbours' values."""
    right = torch.zeros(1, 1, 39, dtype=torch.bool)
    right[0, 0, sorted(order[:30])] = True
    down = torch.zeros(1, 0, 40, dtype=torch.bool)
    diagonal = torch.zeros(1, 0, 39, dtype=torch.bool)
    labels = label_components(right, down, diagonal, diagonal)[0, 0]
    expected = [0]
    for column in range(1, 40):
        expected.append(expected[-1] if right[0, 0, column - 1] else column)
    assert labels.tolist() == expected


def test_batches_do_not_mix() -> None:
    masks = torch.stack((torch.ones(5, 6), torch.zeros(5, 6), torch.eye(5, 6))).bool()
    labels = label_mask(masks)
    alone = torch.cat([label_mask(mask.unsqueeze(0)) for mask in masks])
    assert torch.equal(labels, alone)
    assert (labels[0] == 0).all()
    assert torch.equal(labels[1].flatten(), torch.arange(30))


def test_no_images() -> None:
    assert label_mask(torch.zeros(0, 4, 5, dtype=torch.bool)).shape == (0, 4, 5)


def test_device(device: torch.device) -> None:
    labels = label_mask(torch.ones(2, 4, 5, dtype=torch.bool, device=device))
    assert labels.shape == (2, 4, 5)
    assert labels.device.type == device.type
    assert labels.dtype == torch.int64
