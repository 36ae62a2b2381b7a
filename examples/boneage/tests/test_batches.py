from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise
from hypothesis import given
from hypothesis import strategies as st

from boneage.config import Augmentation
from boneage.data.batches import Batch, RegionDataset, augment, loader, to_float

COUNT = 40


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def make_dataset(rows: np.ndarray, regions: int = 2) -> RegionDataset:
    """Images that hold their row in every pixel, plus 100 for every further region."""
    images = np.broadcast_to(np.arange(COUNT, dtype=np.uint8)[:, None, None], (COUNT, 6, 6))
    months = np.arange(COUNT) + 0.5
    return RegionDataset(
        [images + np.uint8(100 * region) for region in range(regions)],
        months, np.arange(COUNT) % 2 == 0, rows,
    )  # fmt: skip


def rows_of(batches: list[Batch]) -> list[int]:
    return [int(row) for batch in batches for row in batch.images[:, 0, 0, 0]]


# ---------------------------------------------------------------------------- data and loader


def test_a_batch_holds_what_belongs_together(tmp_path: Path) -> None:
    dataset = make_dataset(np.array([3, 8, 5]))
    (batch,) = loader(dataset, 8, shuffle=False)
    assert batch.images.shape == (3, 2, 6, 6)
    assert batch.images.dtype == torch.uint8
    assert rows_of([batch]) == [3, 8, 5]
    torch.testing.assert_close(batch.images[:, 1], batch.images[:, 0] + 100)
    assert batch.months.tolist() == [3.5, 8.5, 5.5]
    assert batch.sex.tolist() == [-1, 1, -1]
    assert batch.months.dtype == batch.sex.dtype == torch.float32


def test_memory_maps_are_read_and_not_written(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([noise(i, 6, 6) for i in range(COUNT)]))
    before = (tmp_path / "a.npy").read_bytes()
    images = np.load(tmp_path / "a.npy", mmap_mode="r")
    dataset = RegionDataset([images], np.ones(COUNT), np.ones(COUNT, bool), np.arange(COUNT))
    for batch in loader(dataset, 7, shuffle=True):
        batch.images.zero_()
    assert (tmp_path / "a.npy").read_bytes() == before


@given(count=st.integers(2, COUNT), batch_size=st.integers(2, 12), seed=st.integers(0, 99))
def test_training_sees_every_row_once_but_a_lonely_last(
    count: int, batch_size: int, seed: int
) -> None:
    rows = np.random.default_rng(seed).permutation(COUNT)[:count]
    batches = list(loader(make_dataset(rows), batch_size, shuffle=True))
    seen = rows_of(batches)
    lonely = count > batch_size and count % batch_size == 1
    assert len(seen) == len(set(seen)) == count - lonely
    assert set(seen) <= set(rows.tolist())
    assert all(len(batch.images) > 1 for batch in batches)
    assert len(loader(make_dataset(rows), batch_size, shuffle=True)) == len(batches)


@given(count=st.integers(1, COUNT), batch_size=st.integers(1, 12), seed=st.integers(0, 99))
def test_validation_sees_every_row_once_in_its_order(
    count: int, batch_size: int, seed: int
) -> None:
    rows = np.random.default_rng(seed).permutation(COUNT)[:count]
    batches = list(loader(make_dataset(rows), batch_size, shuffle=False))
    assert rows_of(batches) == rows.tolist()
    assert len(batches) == math.ceil(count / batch_size)


def test_training_is_shuffled_anew_and_the_seed_repeats_it() -> None:
    batches = loader(make_dataset(np.arange(COUNT)), 8, shuffle=True)
    first, second = rows_of(list(batches)), rows_of(list(batches))
    assert first != second
    torch.manual_seed(0)
    assert rows_of(list(batches)) == first


def test_grey_values_become_floats() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_float(images), torch.tensor([0, 0.2, 1]), atol=1e-7, rtol=0)


# --------------------------------------------------------------------------------------- augment

ALL = Augmentation(rotation=30, shift=0.1, scale=0.2, flip=True, intensity=0.3)


def pictures(count: int = 4, channels: int = 1, size: int = 32) -> torch.Tensor:
    return torch.rand(count, channels, size, size)


def arrow(size: int = 33) -> torch.Tensor:
    """A picture (1, 1, S, S) without any symmetry: bright at the top, brightest at the top left."""
    picture = torch.zeros(1, 1, size, size)
    picture[..., : size // 3, :] = 0.4
    picture[..., : size // 3, : size // 3] = 1
    return picture


def test_nothing_asked_for_changes_nothing() -> None:
    images = pictures()
    torch.testing.assert_close(augment(images, Augmentation()), images, rtol=0, atol=0)


@pytest.mark.parametrize(
    "config",
    [Augmentation(rotation=1e-9), Augmentation(shift=1e-9), Augmentation(intensity=1e-9)],
)
def test_next_to_nothing_changes_next_to_nothing(config: Augmentation) -> None:
    images = pictures()
    torch.testing.assert_close(augment(images, config), images, rtol=0, atol=1e-4)


@given(
    rotation=st.floats(0, 180), shift=st.floats(0, 1), scale=st.floats(0, 0.99),
    flip=st.booleans(), intensity=st.floats(0, 0.99), seed=st.integers(0, 999),
)  # fmt: skip
def test_the_range_the_shape_and_the_type_are_kept(
    rotation: float, shift: float, scale: float, flip: bool, intensity: float, seed: int
) -> None:
    torch.manual_seed(seed)
    config = Augmentation(
        rotation=rotation, shift=shift, scale=scale, flip=flip, intensity=intensity
    )
    images = pictures(3, 2, 16)
    images[0], images[1, :, :8] = 0, 1
    before = images.clone()
    changed = augment(images, config)
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert torch.isfinite(changed).all()
    assert changed.min() >= 0
    assert changed.max() <= 1
    torch.testing.assert_close(images, before, rtol=0, atol=0)


def test_flips_are_about_the_vertical_axis_and_half_of_them() -> None:
    images = arrow().repeat(200, 1, 1, 1)
    changed = augment(images, Augmentation(flip=True))
    same = (changed - images).abs().amax(dim=(1, 2, 3)) < 1e-4
    mirrored = (changed - images.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (same ^ mirrored).all()
    assert 70 < int(mirrored.sum()) < 130


def test_a_rotation_turns_both_ways_and_no_further_than_asked() -> None:
    # One bright spot to the right of the centre: where it goes tells the angle.
    images = torch.zeros(200, 1, 65, 65)
    images[:, :, 31:34, 51:54] = 1
    changed = augment(images, Augmentation(rotation=40))[:, 0]
    weight = changed / changed.sum(dim=(1, 2), keepdim=True)
    y, x = torch.meshgrid(torch.arange(65.0) - 32, torch.arange(65.0) - 32, indexing="ij")
    offset = torch.stack([(weight * x).sum(dim=(1, 2)), (weight * y).sum(dim=(1, 2))])
    torch.testing.assert_close(offset.norm(dim=0), torch.full((200,), 20.0), atol=0.2, rtol=0)
    angles = torch.rad2deg(torch.atan2(offset[1], offset[0]))
    assert angles.abs().max() <= 40.5
    assert angles.min() < -30
    assert angles.max() > 30


def test_turned_and_mirrored_hands_keep_their_shape() -> None:
    # A flip and a rotation together are no shear: the distances of two spots stay.
    images = torch.zeros(50, 2, 65, 65)
    images[:, 0, 31:34, 51:54] = 1
    images[:, 1, 12:15, 31:34] = 1
    changed = augment(images, Augmentation(rotation=180, flip=True))
    weight = changed / changed.sum(dim=(2, 3), keepdim=True)
    y, x = torch.meshgrid(torch.arange(65.0) - 32, torch.arange(65.0) - 32, indexing="ij")
    spots = torch.stack([(weight * x).sum(dim=(2, 3)), (weight * y).sum(dim=(2, 3))], dim=2)
    for distance, expected in (
        (spots[:, 0].norm(dim=1), 20),
        (spots[:, 1].norm(dim=1), 19),
        ((spots[:, 0] - spots[:, 1]).norm(dim=1), math.hypot(20, 19)),
    ):
        torch.testing.assert_close(distance, torch.full((50,), float(expected)), atol=0.3, rtol=0)
    turned_left = spots[:, 0, 0] * spots[:, 1, 1] - spots[:, 0, 1] * spots[:, 1, 0] < 0
    assert 10 < int(turned_left.sum()) < 40  # the others are mirrored


def test_a_shift_is_a_fraction_of_the_side_in_both_directions() -> None:
    images = torch.zeros(300, 1, 65, 65)
    images[:, :, 32, 32] = 1
    changed = augment(images, Augmentation(shift=0.2))[:, 0]
    weight = changed / changed.sum(dim=(1, 2), keepdim=True)
    place = torch.arange(65.0) - 32
    for moved in ((weight.sum(dim=1) * place).sum(dim=1), (weight.sum(dim=2) * place).sum(dim=1)):
        assert moved.abs().max() <= 0.2 * 65 + 0.01
        assert moved.min() < -0.17 * 65
        assert moved.max() > 0.17 * 65


def test_a_scale_makes_larger_and_smaller() -> None:
    images = torch.zeros(200, 1, 64, 64)
    images[:, :, 16:48, 16:48] = 1
    sides = augment(images, Augmentation(scale=0.25)).sum(dim=(1, 2, 3)).sqrt()
    assert sides.min() >= 32 / 1.25 - 0.5
    assert sides.max() <= 32 / 0.75 + 0.5
    assert sides.min() < 28
    assert sides.max() > 38


@pytest.mark.parametrize("change", [{"rotation": 20}, {"shift": 0.05}, {"scale": 0.15}])
def test_fine_detail_keeps_its_contrast(change: dict[str, float]) -> None:
    # Waves four pixels long, away from the edges; bilinear interpolation keeps three quarters.
    stripes = 0.5 + 0.4 * torch.sin(torch.arange(64.0) * math.pi / 2 + 0.7)
    images = stripes.expand(40, 1, 64, 64)
    changed = augment(images, Augmentation.model_validate(change))
    middle = slice(24, 40)
    contrast = changed[..., middle, middle].std() / images[..., middle, middle].std()
    assert 0.9 < contrast < 1.05


def test_values_past_the_edge_repeat_the_edge() -> None:
    images = torch.full((20, 1, 16, 16), 0.3)
    changed = augment(images, Augmentation(rotation=45, shift=0.5, scale=0.5))
    torch.testing.assert_close(changed, images, atol=1e-5, rtol=0)


def test_all_regions_of_an_image_change_alike_and_images_differ() -> None:
    images = pictures(1, 1).repeat(6, 3, 1, 1)
    changed = augment(images, ALL)
    torch.testing.assert_close(changed[:, 1], changed[:, 0])
    torch.testing.assert_close(changed[:, 2], changed[:, 0])
    for i in range(1, 6):
        assert (changed[i] - changed[0]).abs().max() > 0.05


def test_intensity_keeps_the_order_of_greys() -> None:
    ramp = torch.linspace(0, 1, 64).expand(50, 1, 64, 64)
    changed = augment(ramp, Augmentation(intensity=0.4))
    assert (changed.diff(dim=3) >= -1e-6).all()
    assert changed[:, 0, 0, 32].std() > 0.05


def test_the_seed_repeats_the_changes() -> None:
    images = pictures()
    torch.manual_seed(1)
    first = augment(images, ALL)
    torch.manual_seed(1)
    torch.testing.assert_close(augment(images, ALL), first, rtol=0, atol=0)
    assert (augment(images, ALL) - first).abs().max() > 0.05
