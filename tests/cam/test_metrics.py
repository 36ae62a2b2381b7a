import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ldlcam.cam import (
    average_precision,
    box_accuracy,
    levelset_boxes,
    levelset_components,
    mean_iou,
    pixel_average_precision,
    pointing_game,
    threshold_sweep,
)
from tests.cam.maps import bumps, seeds
from tests.cam.oracles import iou

# IoU with TARGETS: 1, 1/2, 1/4, 0.
BOXES = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 2, 2], [5, 5, 9, 9]])
TARGETS = torch.tensor([[0.0, 0, 4, 4]]).expand(4, 4)


def test_by_hand() -> None:
    assert float(mean_iou(BOXES, TARGETS)) == pytest.approx(1.75 / 4)
    assert float(average_precision(BOXES, TARGETS)) == 0.25  # a half is not more than a half
    assert float(average_precision(BOXES, TARGETS, iou_threshold=0.49)) == 0.5
    assert float(average_precision(BOXES, TARGETS, iou_threshold=0)) == 0.75


def test_images_without_a_region_are_misses() -> None:
    valid = torch.tensor([False, True, True, True])
    assert float(mean_iou(BOXES, TARGETS, valid)) == pytest.approx(0.75 / 4)
    assert float(average_precision(BOXES, TARGETS, valid)) == 0
    zeros = torch.zeros(4, 4)
    assert float(mean_iou(zeros, TARGETS)) == 0


def test_images_without_a_target_do_not_count() -> None:
    targets = TARGETS.clone()
    targets[3] = torch.nan
    targets[2] = 0
    assert float(mean_iou(BOXES, targets)) == pytest.approx(0.75)
    assert float(average_precision(BOXES, targets)) == 0.5
    nowhere = torch.full((4, 4), torch.nan)
    heatmaps = torch.rand(4, 3, 3)
    for value in (
        mean_iou(BOXES, nowhere),
        average_precision(BOXES, nowhere),
        pointing_game(heatmaps, nowhere, (9, 9)),
        mean_iou(BOXES[:0], TARGETS[:0]),
    ):
        assert float(value) == 0


@given(seeds)
def test_against_loops(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(2, 30, 4, generator=generator, dtype=torch.float64) * 10
    boxes, targets = torch.cat((corners[..., :2], corners[..., :2] + corners[..., 2:]), 2)
    valid = torch.rand(30, generator=generator) < 0.8
    overlaps = [
        iou(tuple(box), tuple(target)) if found else 0
        for box, target, found in zip(boxes.tolist(), targets.tolist(), valid.tolist(), strict=True)
    ]
    assert float(mean_iou(boxes, targets, valid)) == pytest.approx(sum(overlaps) / 30)
    for threshold in (0.3, 0.5):
        share = sum(overlap > threshold for overlap in overlaps) / 30
        found = average_precision(boxes, targets, valid, threshold)
        assert float(found) == pytest.approx(share)


@pytest.mark.parametrize(
    ("target", "hit"),
    [
        ((75, 25, 125, 75), True),
        ((74, 24, 75, 26), False),  # ends where the centre is
        ((75, 25, 76, 26), True),  # begins where the centre is
        ((0, 0, 60, 60), False),
    ],
)
def test_pointing_game_by_hand(target: tuple[float, ...], hit: bool) -> None:
    heatmaps = torch.zeros(1, 2, 4)
    heatmaps[0, 0, 1] = 1  # its centre lies at x = 75, y = 25
    targets = torch.tensor([target], dtype=torch.float32)
    assert float(pointing_game(heatmaps, targets, (100, 200))) == hit
    sizes = torch.tensor([[100, 200]])
    assert float(pointing_game(heatmaps, targets, sizes)) == hit


@pytest.mark.parametrize(
    ("target", "distance"),
    [
        ((75, 25, 125, 75), 0),
        ((0, 0, 60, 60), 15),  # to the left
        ((79, 28, 90, 90), 5),  # a corner, 4 and 3 away
        ((0, 0, 75, 60), 0),  # ends where the point is
    ],
)
def test_a_point_may_lie_a_little_beside_its_target(
    target: tuple[float, ...], distance: float
) -> None:
    heatmaps = torch.zeros(1, 2, 4)
    heatmaps[0, 0, 1] = 1  # its centre lies at x = 75, y = 25
    targets = torch.tensor([target], dtype=torch.float32)
    for tolerance in (distance + 1e-3, max(distance - 1e-3, 1e-3)):
        found = pointing_game(heatmaps, targets, (100, 200), tolerance=tolerance)
        assert float(found) == (tolerance >= distance)
    flat = pointing_game(torch.ones(1, 2, 4), targets, (100, 200), tolerance=500)
    assert flat == 0  # shows no place
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="tolerance: expected a finite number of at least 0"):
            pointing_game(heatmaps, targets, (100, 200), tolerance=wrong)


def test_maps_that_show_no_place_miss() -> None:
    heatmaps = torch.stack((torch.eye(3), torch.ones(3, 3), torch.full((3, 3), torch.nan)))
    targets = torch.tensor([[0.0, 0.0, 90.0, 90.0]]).expand(3, 4)
    assert float(pointing_game(heatmaps, targets, (90, 90))) == pytest.approx(1 / 3)


def swept() -> tuple[Tensor, Tensor]:
    centers = torch.tensor([[[5.0, 6.0]], [[9.0, 4.0]], [[8.0, 9.0]]])
    heatmaps = bumps(centers, torch.full((3, 1), 2.0), torch.ones(3, 1), (14, 16))
    targets, _ = levelset_boxes(heatmaps, 0.4, (280, 320))
    return heatmaps, targets


def test_sweep_finds_the_threshold_the_targets_were_made_with() -> None:
    heatmaps, targets = swept()
    thresholds = [0.1, 0.2, 0.4, 0.6, 0.9]
    sweep = threshold_sweep(heatmaps, targets, thresholds, (280, 320))
    assert sweep.thresholds.tolist() == pytest.approx(thresholds)
    assert float(sweep.best) == pytest.approx(0.4)
    assert float(sweep.mean_iou[2]) == pytest.approx(1)
    assert (sweep.mean_iou[:2].diff() > 0).all()
    assert (sweep.mean_iou[2:].diff() < 0).all()
    for index, threshold in enumerate(thresholds):
        boxes, valid = levelset_boxes(heatmaps, threshold, (280, 320))
        assert float(sweep.mean_iou[index]) == float(mean_iou(boxes, targets, valid))
        assert float(sweep.ap50[index]) == float(average_precision(boxes, targets, valid))
    sizes = torch.tensor([[280, 320]]).expand(3, 2)
    again = threshold_sweep(heatmaps, targets, torch.tensor(thresholds), sizes, "peak")
    torch.testing.assert_close(again.mean_iou, sweep.mean_iou)


def test_of_equal_thresholds_the_first_is_best() -> None:
    heatmaps, targets = swept()
    sweep = threshold_sweep(-heatmaps, targets, [0.7, 0.5], (280, 320))
    assert sweep.mean_iou.tolist() == [0, 0]
    assert float(sweep.best) == pytest.approx(0.7)


@given(st.sampled_from([torch.float32, torch.float64]))
def test_dtypes(dtype: torch.dtype) -> None:
    heatmaps, targets = swept()
    sweep = threshold_sweep(heatmaps.float(), targets.to(dtype), [0.3, 0.5], (280, 320))
    assert all(part.dtype == dtype for part in sweep)


def test_device(device: torch.device) -> None:
    boxes, targets = BOXES.to(device), TARGETS.to(device)
    heatmaps = torch.rand(4, 3, 3, device=device)
    valid = torch.ones(4, dtype=torch.bool, device=device)
    results = (
        mean_iou(boxes, targets, valid),
        average_precision(boxes, targets, valid),
        pointing_game(heatmaps, targets, (9, 9)),
    )
    for result in results:
        assert result.shape == ()
        assert result.device.type == device.type
    sweep = threshold_sweep(heatmaps, targets, [0.2, 0.5, 0.8], (9, 9))
    assert [part.shape for part in sweep] == [(3,), (3,), (3,), ()]
    assert all(part.device.type == device.type for part in sweep)


def test_errors() -> None:
    with pytest.raises(ValueError, match="targets: expected length 4 as boxes has, got 3"):
        mean_iou(BOXES, TARGETS[:3])
    with pytest.raises(ValueError, match=r"valid: expected shape \(N,\) with N = 4, got \(4, 1\)"):
        mean_iou(BOXES, TARGETS, torch.ones(4, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"iou_threshold: expected a number in \[0, 1\), got 50"):
        average_precision(BOXES, TARGETS, iou_threshold=50)
    heatmaps = torch.rand(4, 3, 3)
    with pytest.raises(ValueError, match="targets: expected length 4 as heatmaps has, got 3"):
        pointing_game(heatmaps, TARGETS[:3], (9, 9))
    with pytest.raises(ValueError, match="thresholds: expected at least one, got none"):
        threshold_sweep(heatmaps, TARGETS, [], (9, 9))


def test_half_precision_targets_of_large_images() -> None:
    heatmaps = torch.zeros(2, 40, 40)
    heatmaps[:, 20:, 20:] = 1.0
    targets = torch.tensor([[1000.0, 1000, 2000, 2000], [1000, 1000, 2000, 1500]]).half()
    assert float(pointing_game(heatmaps, targets, (2000, 2000))) == 1
    sweep = threshold_sweep(heatmaps, targets, [0.25, 0.5], (2000, 2000))
    exact = threshold_sweep(heatmaps, targets.double(), [0.25, 0.5], (2000, 2000))
    torch.testing.assert_close(sweep.mean_iou.double(), exact.mean_iou, rtol=1e-5, atol=0)
    assert float(sweep.best) == float(exact.best)


def test_thresholds_given_as_percentages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"thresholds: expected a number in \(0, 1\], got 20"):
        threshold_sweep(torch.rand(4, 3, 3), TARGETS, [20, 40], (9, 9))
    with pytest.raises(ValueError, match=r"thresholds: expected a number in \(0, 1\], got 40"):
        threshold_sweep(torch.rand(4, 3, 3), TARGETS, torch.tensor([0.2, 40]), (9, 9))


# ----------------------------------------------------------------------------------- box accuracy


@pytest.mark.parametrize("components", [1, 3])
def test_box_accuracy_against_loops(components: int) -> None:
    maps = torch.rand(12, 5, 6, generator=torch.Generator().manual_seed(1))
    targets, _ = levelset_boxes(maps, 0.6, (50, 60))
    targets = targets + torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
    targets[3] = torch.nan
    thresholds, limits = [0.4, 0.6, 0.8], [0.3, 0.5, 0.7, 0.9]
    found = box_accuracy(
        maps, targets, thresholds, (50, 60), iou_thresholds=limits, components=components
    )
    expected = np.zeros((3, 4))
    for k, threshold in enumerate(thresholds):
        boxes, valid = levelset_components(maps, threshold, (50, 60), components)
        for i in range(12):
            overlaps = [
                iou(tuple(box), tuple(targets[i].tolist()))
                for box, there in zip(boxes[i].tolist(), valid[i].tolist(), strict=True)
                if there and i != 3
            ]
            if i != 3:
                expected[k] += [max(overlaps) >= limit for limit in limits]
    np.testing.assert_allclose(found.accuracy, expected / 11, atol=1e-6)
    np.testing.assert_allclose(found.maximum, expected.max(axis=0) / 11, atol=1e-6)
    for d in range(4):
        assert float(found.best[d]) == pytest.approx(thresholds[int(expected[:, d].argmax())])
    assert float(found.mean) == pytest.approx(expected.max(axis=0).mean() / 11)


def test_box_accuracy_of_nothing() -> None:
    maps = torch.stack((torch.zeros(3, 3), torch.full((3, 3), torch.nan)))
    targets = torch.tensor([[0.0, 0.0, 30.0, 30.0]]).expand(2, 4)
    for values, boxes in ((maps, targets), (maps[:0], targets[:0]), (maps, targets * torch.nan)):
        found = box_accuracy(values, boxes, [0.5], (30, 30), iou_thresholds=[0.0, 0.5])
        assert found.accuracy.tolist() == [[0, 0]]
        assert found.mean == 0


# --------------------------------------------------------------------------------------------- PxAP


def average_precision_by_hand(scores: np.ndarray, hits: np.ndarray) -> float:
    """The sum over different scores of precision times the step in recall."""
    total, last = 0.0, 0.0
    for score in np.unique(scores)[::-1]:
        above = scores >= score
        recall = hits[above].sum() / hits.sum()
        total += hits[above].mean() * (recall - last)
        last = recall
    return total


@pytest.mark.parametrize("ignoring", [False, True])
@pytest.mark.parametrize("steps", [False, True])
def test_pixel_average_precision_by_hand(ignoring: bool, steps: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(3, 4, 5, generator=generator, dtype=torch.float64) - 0.2
    if steps:
        maps = (8 * maps).round()
    masks = torch.rand(3, 12, 15, generator=generator) < 0.3
    ignored = torch.rand(3, 12, 15, generator=generator) < 0.2 if ignoring else None
    size = (4, 5) if steps else (12, 15)  # as they are, ties stay ties
    masks = masks[:, : size[0], : size[1]]
    ignored = None if ignored is None else ignored[:, : size[0], : size[1]]
    big = F.interpolate(maps[:, None], size=size, mode="bilinear")[:, 0].numpy()
    low, high = big.min(axis=(1, 2), keepdims=True), big.max(axis=(1, 2), keepdims=True)
    scores = ((big - low) / (high - low)).round(12)
    counted = np.ones(scores.shape, bool) if ignored is None else ~ignored.numpy()
    expected = average_precision_by_hand(scores[counted], masks.numpy()[counted])
    found = pixel_average_precision(maps, masks, ignored)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    sklearn = pytest.importorskip("sklearn.metrics")
    assert float(found) == pytest.approx(
        sklearn.average_precision_score(masks.numpy()[counted], scores[counted])
    )


def test_pixel_average_precision_at_its_ends() -> None:
    maps = torch.rand(4, 6, 7)
    hot = maps >= maps.flatten(1).quantile(0.8, dim=1)[:, None, None]
    one = maps[:1]
    assert pixel_average_precision(one, hot[:1]) == 1
    assert pixel_average_precision(one, torch.zeros(1, 6, 7, dtype=torch.bool)) == 0
    assert pixel_average_precision(one, torch.ones(1, 6, 7, dtype=torch.bool)) == 1
    # Scores that say nothing have the share of hot pixels at every recall.
    flat = torch.stack((torch.zeros(6, 7), torch.full((6, 7), math.nan)))
    share = hot[:2].float().mean()
    torch.testing.assert_close(pixel_average_precision(flat, hot[:2]), share)
    assert pixel_average_precision(maps[:0], hot[:0]) == 0


def test_each_maps_own_scale_does_not_matter() -> None:
    maps, masks = torch.rand(3, 5, 6, dtype=torch.float64), torch.rand(3, 20, 24) < 0.3
    scales = torch.tensor([1e-3, 1.0, 1e5], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(
        pixel_average_precision(scales * maps, masks), pixel_average_precision(maps, masks)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_device_of_the_further_metrics(device: torch.device, dtype: torch.dtype) -> None:
    maps = torch.rand(2, 4, 5, device=device).to(dtype)
    targets = torch.tensor([[0.0, 0.0, 9.0, 9.0]], device=device, dtype=dtype).expand(2, 4)
    masks = torch.rand(2, 8, 10, device=device) < 0.5
    score = pixel_average_precision(maps, masks)
    assert score.shape == ()
    assert score.device.type == device.type
    accuracy = box_accuracy(maps, targets, [0.3, 0.5], (20, 20))
    assert accuracy.accuracy.shape == (2, 3)
    assert {part.device.type for part in accuracy} == {device.type}


def test_errors_of_the_further_metrics() -> None:
    maps, targets = torch.rand(2, 4, 5), torch.rand(2, 4)
    for limits in ([], [1.5], [math.nan]):
        with pytest.raises(ValueError, match=r"iou_thresholds: expected numbers in \[0, 1\]"):
            box_accuracy(maps, targets, [0.5], (8, 8), iou_thresholds=limits)
    with pytest.raises(ValueError, match="thresholds: expected at least one, got none"):
        box_accuracy(maps, targets, [], (8, 8))
    with pytest.raises(ValueError, match="components: expected an integer of at least 1, got 0"):
        box_accuracy(maps, targets, [0.5], (8, 8), components=0)
    with pytest.raises(ValueError, match="targets: expected length 2 as heatmaps has, got 1"):
        box_accuracy(maps, targets[:1], [0.5], (8, 8))
    with pytest.raises(TypeError, match="masks: expected a tensor of bool dtype"):
        pixel_average_precision(maps, torch.rand(2, 8, 8))
    masks = torch.rand(2, 8, 8) < 0.5
    with pytest.raises(ValueError, match=r"ignored: expected shape \(N, H, W\) with N = 2, H = 8"):
        pixel_average_precision(maps, masks, masks[:, :4])
    with pytest.raises(ValueError, match="masks: expected length 2 as heatmaps has, got 1"):
        pixel_average_precision(maps, masks[:1])


def test_one_number_in_place_of_several() -> None:
    maps, targets = torch.rand(2, 4, 5), torch.rand(2, 4)
    with pytest.raises(TypeError, match=r"^thresholds: expected a sequence of numbers, got float"):
        threshold_sweep(maps, targets, 0.5, (8, 8))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^thresholds: expected a sequence of numbers, got float"):
        box_accuracy(maps, targets, 0.5, (8, 8))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="iou_thresholds: expected a sequence of numbers, got fl"):
        box_accuracy(maps, targets, [0.5], (8, 8), iou_thresholds=0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"iou_threshold: expected a number in \[0, 1\), got \["):
        average_precision(targets, targets, None, [0.5])  # type: ignore[arg-type]
