import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ldlcam.cam import AttentionCascade, CAMHead, erase_boxes, levelset_boxes


def brightness(images: Tensor) -> Tensor:
    """Heat maps of the images' own light, in cells of 4 x 4 pixels."""
    return F.avg_pool2d(images.mean(1, keepdim=True), 4)[:, 0]


def spots(*levels: float) -> Tensor:
    """An image (1, 1, 24, 32) with square spots of 4 pixels, each of its own brightness."""
    image = torch.zeros(1, 1, 24, 32)
    for i, level in enumerate(levels):
        image[..., 8 * (i // 4) : 8 * (i // 4) + 4, 8 * (i % 4) : 8 * (i % 4) + 4] = level
    return image


def corner(i: int) -> list[float]:
    x, y = 8.0 * (i % 4), 8.0 * (i // 4)
    return [x, y, x + 4, y + 4]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_regions_come_in_the_order_of_their_heat(count: int) -> None:
    image = spots(0.4, 0.9, 0.2, 0.7, 0.1, 0.6)
    cascade = AttentionCascade([brightness] * count, threshold=0.9, fill=0.0)
    boxes, valid, heatmaps, images = cascade(image)
    assert boxes.shape == (1, count, 4)
    assert valid.all()
    assert len(heatmaps) == len(images) == count
    for found, spot in zip(boxes[0], [1, 3, 5, 0, 2], strict=False):
        # A threshold of 0.9 keeps to the inner tenth of a step to the neighbouring cells.
        torch.testing.assert_close(found, torch.tensor(corner(spot)), atol=2, rtol=0)


def test_each_step_sees_the_images_without_the_regions_before() -> None:
    image = spots(0.4, 0.9, 0.2)
    seeds = torch.tensor([5])
    boxes, _, _, images = AttentionCascade([brightness] * 3, threshold=0.5)(image, seeds=seeds)
    assert images[0] is image
    for step in range(2):
        expected = erase_boxes(images[step], boxes[:, step], seeds=seeds)
        assert torch.equal(images[step + 1], expected)


def test_without_exclusion_a_patch_can_be_found_again() -> None:
    image = spots(0.4, 0.9)
    options = {"threshold": 0.5, "fill": 2.0}
    again = AttentionCascade([brightness] * 2, exclude=False, **options)(image).boxes[0]
    other = AttentionCascade([brightness] * 2, **options)(image).boxes[0]
    overlaps = [float(b[0]) < 12 and float(b[2]) > 8 for b in (again[1], other[1])]
    assert overlaps == [True, False]


def test_when_nothing_is_left_nothing_is_erased() -> None:
    batch = torch.cat((spots(0.5), spots(0.4, 0.9), torch.zeros(1, 1, 24, 32)))
    _, valid, heatmaps, images = AttentionCascade([brightness] * 3, threshold=0.5, fill=0.0)(batch)
    assert valid.tolist() == [[True, False, False], [True, True, False], [False] * 3]
    assert torch.equal(images[1][2], batch[2])
    assert torch.equal(images[2][0], images[1][0])
    assert all(heatmap.isfinite().all() for heatmap in heatmaps)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_map_disturbs_no_other_image(bad: float) -> None:
    def sometimes_bad(images: Tensor) -> Tensor:
        maps = brightness(images)
        maps[0] = bad
        return maps

    batch = spots(0.4, 0.9).repeat(2, 1, 1, 1)
    cascade = AttentionCascade([sometimes_bad, brightness], threshold=0.5, fill=0.0)
    boxes, valid, _, _ = cascade(batch)
    assert valid.tolist() == [[False, True], [True, True]]
    alone = AttentionCascade([brightness] * 2, threshold=0.5, fill=0.0)(batch[1:])
    assert torch.equal(boxes[1:], alone.boxes)


def test_seeds_make_the_regions_the_images_own() -> None:
    batch = torch.rand(4, 3, 24, 32)
    cascade = AttentionCascade([brightness] * 3, threshold=0.7, fill="noise")
    seeds = torch.tensor([3, 1, 4, 1])
    together = cascade(batch, seeds=seeds)
    for i in range(4):
        alone = cascade(batch[i : i + 1], seeds=seeds[i : i + 1])
        torch.testing.assert_close(together.boxes[i : i + 1], alone.boxes)


def test_thresholds_margins_and_components_are_those_of_levelset_boxes() -> None:
    maps = torch.rand(2, 6, 8)
    cascade = AttentionCascade(
        [lambda _: maps, lambda _: maps], threshold=[0.8, 0.3], component="peak", margin=0.25,
        exclude=False,
    )  # fmt: skip
    boxes = cascade(torch.rand(2, 1, 60, 80)).boxes
    for step, threshold in enumerate((0.8, 0.3)):
        plain = levelset_boxes(maps, threshold, (60, 80), component="peak").boxes
        sides = (plain[:, 2:] - plain[:, :2]).repeat(1, 2)
        wider = plain + 0.25 * sides * torch.tensor([-1, -1, 1, 1])
        expected = torch.minimum(wider.clamp(min=0), torch.tensor([80.0, 60.0, 80.0, 60.0]))
        torch.testing.assert_close(boxes[:, step], expected)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.head = CAMHead(4, 3, pool="max")

    def forward(self, images: Tensor) -> Tensor:
        return self.head.heatmaps(self.trunk(images))


@pytest.mark.parametrize(
    "threshold", [0.25, torch.tensor(0.25), np.float32(0.25), [0.25, 0.25], torch.full((2,), 0.25)]
)
def test_thresholds_of_any_kind(threshold: Any) -> None:
    assert AttentionCascade([brightness] * 2, threshold=threshold).thresholds == [0.25, 0.25]


def test_networks_belong_to_the_cascade() -> None:
    first, second = Network(), Network()
    cascade = AttentionCascade([first, second], threshold=0.5).eval()
    assert not first.training
    assert len(list(cascade.parameters())) == 2 * len(list(first.parameters()))
    other = AttentionCascade([Network(), Network()], threshold=0.5).eval()
    other.load_state_dict(cascade.state_dict())
    images, seeds = torch.rand(2, 1, 16, 16), torch.tensor([1, 2])
    expected = cascade(images, seeds=seeds).boxes
    torch.testing.assert_close(other(images, seeds=seeds).boxes, expected)
    torch.testing.assert_close(copy.deepcopy(cascade)(images, seeds=seeds).boxes, expected)
    assert cascade.double()(images.double()).boxes.dtype == torch.float64
    assert "threshold=[0.5, 0.5]" in repr(cascade)


def test_a_network_put_in_anothers_place_draws_the_maps() -> None:
    cascade = AttentionCascade([brightness, Network(), Network()], threshold=0.5, fill=0.0)
    images = torch.rand(2, 1, 16, 16)
    before = cascade(images).heatmaps
    cascade.networks[0] = nn.Sequential(cascade.networks[0], nn.ReLU())
    after = cascade(images).heatmaps
    assert torch.equal(after[0], before[0])
    torch.testing.assert_close(after[1], before[1].relu())
    assert cascade.steps[0] is brightness
    assert cascade.steps[1:] == list(cascade.networks)


def test_compiles() -> None:
    cascade = AttentionCascade([Network()], threshold=0.5, fill=0.0)
    images = torch.rand(2, 1, 16, 16)
    compiled = torch.compile(cascade, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images).boxes, cascade(images).boxes)


def test_device(device: torch.device) -> None:
    cascade = AttentionCascade([Network(), Network()], threshold=0.5).to(device)
    history = cascade(torch.rand(3, 1, 16, 20, device=device))
    assert history.boxes.shape == (3, 2, 4)
    assert history.valid.shape == (3, 2)
    assert {t.device.type for t in (history.boxes, history.valid, *history.images)} == {device.type}


def test_errors() -> None:
    with pytest.raises(ValueError, match="steps: expected at least one, got none"):
        AttentionCascade([], threshold=0.5)
    with pytest.raises(TypeError, match="steps: expected callables, got str"):
        AttentionCascade(["a"], threshold=0.5)  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"steps: expected a sequence of .*, got Identity"):
        AttentionCascade(nn.Identity(), threshold=0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"threshold: expected a number, or .*, got NoneType"):
        AttentionCascade([brightness], threshold=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="margin: expected a finite number of at least 0, got None"):
        AttentionCascade([brightness], threshold=0.5, margin=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"threshold: expected one, or 1 as there are steps, got"):
        AttentionCascade([brightness], threshold=[0.5, 0.5])
    with pytest.raises(ValueError, match=r"threshold: expected a number in \(0, 1\], got 50"):
        AttentionCascade([brightness], threshold=50)
    with pytest.raises(ValueError, match=r"margin: expected a finite number of at least 0, got -"):
        AttentionCascade([brightness], threshold=0.5, margin=-0.1)
    with pytest.raises(ValueError, match="component: expected one of 'largest', 'peak', got 'all'"):
        AttentionCascade([brightness], threshold=0.5, component="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fill: expected one of 'random', 'noise', 'mean', got 'z"):
        AttentionCascade([brightness], threshold=0.5, fill="zero")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"value_range: expected \(lowest, highest\), got \(1, 0"):
        AttentionCascade([brightness], threshold=0.5, value_range=(1, 0))
    cascade = AttentionCascade([lambda images: images], threshold=0.5)
    with pytest.raises(ValueError, match=r"heatmaps: expected shape \(N, h, w\) with N = 2, got"):
        cascade(torch.rand(2, 1, 8, 8))


def test_a_cascade_can_be_made_without_values() -> None:
    with torch.device("meta"):
        cascade = AttentionCascade([nn.Conv2d(3, 1, 3)], threshold=0.5)
    assert cascade.thresholds == [0.5]
