import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ldlcam.cam import (
    average_precision,
    levelset_boxes,
    mean_iou,
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
    with pytest.raises(ValueError, match="b: expected length 4 as a has, got 3"):
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
