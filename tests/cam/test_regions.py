import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ldlcam.cam import Regions, levelset_boxes, mask_boxes, threshold_mask
from ldlcam.cam.regions import _largest, _largest_on_cpu
from tests.cam.maps import fractions, lengths, random_maps, seeds, serpentine, sides, spiral
from tests.cam.oracles import component_box, dense_mask


@given(sides, sides, lengths, lengths, fractions, seeds)
def test_masks_are_upsampled_maps_above_the_threshold(
    height: int, width: int, rows: int, columns: int, threshold: float, seed: int
) -> None:
    maps = random_maps("smooth", 3, height, width, seed)
    found = threshold_mask(maps, threshold, (rows, columns))
    assert found.shape == (3, rows, columns)
    for heatmap, mask in zip(maps, found, strict=True):
        shows = float(heatmap.max()) > max(0.0, float(heatmap.min()))
        # The reference rounds, also at a pixel that has the very value of a sample.
        least, most = (
            dense_mask(heatmap, threshold * (1 + sign * 1e-6), (rows, columns)) & shows
            for sign in (1, -1)
        )
        assert (least <= mask.numpy()).all()
        assert (mask.numpy() <= most).all()


def test_without_size_the_map_itself() -> None:
    maps = random_maps("rough", 3, 5, 6, 0)
    expected = maps >= 0.4 * maps.amax((1, 2), keepdim=True)
    assert torch.equal(threshold_mask(maps, 0.4), expected)
    assert torch.equal(threshold_mask(maps, 1.0).sum((1, 2)), torch.ones(3, dtype=torch.int64))


def test_maps_are_not_clamped() -> None:
    """Clamping negative values before upsampling would widen the region."""
    maps = torch.tensor([[[-3.0, 1.0]]])
    masks = threshold_mask(maps, 0.5, (1, 80))
    assert int(masks.sum()) < int(threshold_mask(maps.clamp(min=0), 0.5, (1, 80)).sum())


def test_thresholds_of_each_image() -> None:
    maps = random_maps("smooth", 4, 6, 6, 1)
    thresholds = torch.tensor([0.2, 0.9, 0.5, 1.0])
    masks = threshold_mask(maps, thresholds, (30, 30))
    for index, threshold in enumerate(thresholds):
        assert torch.equal(masks[index], threshold_mask(maps, threshold, (30, 30))[index])
    unusable = torch.tensor([0.0, -0.5, 1.01, torch.nan])
    assert not threshold_mask(maps, unusable).any()


def test_degenerate_maps_have_empty_masks() -> None:
    good = random_maps("smooth", 1, 4, 4, 2)[0]
    poor = [torch.zeros(4, 4), torch.ones(4, 4), -good.abs() - 1, good * torch.nan]
    poor.append(good.clone().index_fill_(0, torch.tensor([1]), torch.inf))
    masks = threshold_mask(torch.stack([*poor, good]), 0.5, (20, 20))
    assert not masks[:-1].any()
    assert torch.equal(masks[-1:], threshold_mask(good[None], 0.5, (20, 20)))


def boxes_of(masks: Tensor) -> tuple[Tensor, Tensor]:
    found = [component_box(mask.numpy()) for mask in masks]
    boxes = torch.tensor([box for box, _ in found]).float()
    return boxes, torch.tensor([valid for _, valid in found])


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 1), seeds)
def test_boxes_of_random_masks(height: int, width: int, density: float, seed: int) -> None:
    draws = np.random.default_rng(seed).random((4, height, width))
    masks = torch.from_numpy(draws < density)
    boxes, valid = mask_boxes(masks)
    expected, found = boxes_of(masks)
    assert torch.equal(boxes, expected)
    assert torch.equal(valid, found)
    assert torch.equal(_largest(masks), _largest_on_cpu(masks))


@pytest.mark.parametrize("path", [spiral(41), serpentine(37, 41)], ids=["spiral", "serpentine"])
def test_boxes_of_long_paths(path: Tensor) -> None:
    masks = torch.stack((path, ~path, path.flip(0)))
    boxes, _ = mask_boxes(masks)
    assert torch.equal(boxes, boxes_of(masks)[0])
    assert torch.equal(_largest(masks), _largest_on_cpu(masks))


def test_corners_connect() -> None:
    mask = torch.eye(6, dtype=torch.bool)
    mask[0, 4:] = True
    assert mask_boxes(mask[None]).boxes.tolist() == [[0, 0, 6, 6]]


def test_largest_means_pixels_not_extent() -> None:
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[0, 0, :8] = True
    mask[0, 5:8, 5:8] = True
    assert mask_boxes(mask).boxes.tolist() == [[5, 5, 8, 8]]
    assert mask_boxes(mask, component="all").boxes.tolist() == [[0, 0, 8, 8]]


def test_of_equals_the_first_in_reading_order() -> None:
    mask = torch.zeros(1, 6, 6, dtype=torch.bool)
    mask[0, 4, 0:2] = mask[0, 1, 3:5] = True
    assert mask_boxes(mask).boxes.tolist() == [[3, 1, 5, 2]]
    assert torch.equal(_largest(mask), _largest_on_cpu(mask))


def test_single_pixels_and_empty_masks() -> None:
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[1, 0, 0] = masks[2, 3, 4] = True
    for component in ("largest", "all"):
        boxes, valid = mask_boxes(masks, component=component)  # type: ignore[arg-type]
        assert boxes.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [4, 3, 5, 4]]
        assert valid.tolist() == [False, True, True]


def test_no_images() -> None:
    boxes, valid = mask_boxes(torch.zeros(0, 4, 5, dtype=torch.bool))
    assert boxes.shape == (0, 4)
    assert valid.shape == (0,)


@pytest.mark.parametrize("component", ["largest", "all"])
def test_compiles(component: str) -> None:
    maps = random_maps("smooth", 2, 6, 6, 3)

    def path(maps: Tensor) -> Regions:
        masks = threshold_mask(maps, 0.5, (20, 30))
        return mask_boxes(masks, component=component)  # type: ignore[arg-type]

    compiled = torch.compile(path, backend="eager", fullgraph=True)
    assert torch.equal(compiled(maps).boxes, path(maps).boxes)


@pytest.mark.parametrize("component", ["largest", "all"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_device(device: torch.device, dtype: torch.dtype, component: str) -> None:
    maps = torch.rand(2, 5, 6, device=device).to(dtype)
    masks = threshold_mask(maps, 0.5, (20, 25))
    assert masks.shape == (2, 20, 25)
    assert masks.device.type == device.type
    boxes, valid = mask_boxes(masks, component=component)  # type: ignore[arg-type]
    assert boxes.shape == (2, 4)
    assert boxes.dtype == torch.float32
    assert boxes.device.type == valid.device.type == device.type
    if device.type == "cuda":
        expected = mask_boxes(masks.cpu(), component=component)  # type: ignore[arg-type]
        assert torch.equal(boxes.cpu(), expected.boxes)


def test_errors() -> None:
    with pytest.raises(TypeError, match="masks: expected a tensor of bool dtype"):
        mask_boxes(torch.ones(1, 4, 4))
    with pytest.raises(ValueError, match=r"masks: expected shape \(N, H, W\), got \(4, 4\)"):
        mask_boxes(torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="component: expected one of 'largest', 'all'"):
        mask_boxes(torch.ones(1, 4, 4, dtype=torch.bool), component="peak")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"threshold: expected a number in \(0, 1\], got 50"):
        threshold_mask(torch.rand(1, 4, 4), 50)
    with pytest.raises(
        ValueError, match=r"size: expected \(height, width\), whole numbers of at least 1"
    ):
        threshold_mask(torch.rand(1, 4, 4), 0.5, (0, 4))


def test_mask_at_the_maximum_keeps_the_whole_plateau() -> None:
    heatmaps = torch.tensor([[[0.7, 0.7, 0.7, 0.1]]])
    found = mask_boxes(threshold_mask(heatmaps, 1.0, (35, 50)))
    exact = levelset_boxes(heatmaps, 1.0, (35, 50), snap=True)
    assert torch.equal(found.boxes, exact.boxes)
    assert found.boxes.tolist() == [[0, 0, 31, 35]]


def test_a_mask_without_pixels_has_no_box() -> None:
    for shape in ((2, 0, 9), (2, 9, 0)):
        for component in ("largest", "all"):
            boxes, valid = mask_boxes(torch.zeros(shape, dtype=torch.bool), component=component)
            assert boxes.tolist() == [[0.0] * 4] * 2
            assert not valid.any()
