from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ldlcam.cam import Regions, levelset_boxes, mask_boxes, threshold_mask
from tests.cam.maps import (
    KINDS,
    bumps,
    fractions,
    lengths,
    random_maps,
    seeds,
    serpentine,
    sides,
    spiral,
    stepped_maps,
)
from tests.cam.oracles import dense_boxes

COMPONENTS = ("largest", "peak")
components = st.sampled_from(COMPONENTS)
kinds = st.sampled_from(KINDS)


def settled(maps: Tensor, threshold: float, size: tuple[int, int], component: str) -> Tensor:
    """Images whose dense answer does not hang on the rounding of float32."""
    low, _ = dense_boxes(maps, threshold * (1 - 1e-5), size, component)
    high, _ = dense_boxes(maps, threshold * (1 + 1e-5), size, component)
    return (low == high).all(1)


def disagreeing(
    maps: Tensor, threshold: float, size: tuple[int, int], component: str
) -> tuple[Tensor, Tensor]:
    """Images on which the dense answer differs, and those of them it is settled for."""
    boxes, valid = levelset_boxes(maps, threshold, size, component=component, snap=True)
    expected, found = dense_boxes(maps, threshold, size, component)
    different = (boxes != expected).any(1) | (valid != found)
    if not different.any():
        return different, different
    return different, different & settled(maps, threshold, size, component)


# The pixel grid: the answer of upsampling, thresholding and labelling pixels.


@settings(max_examples=150)
@given(kinds, sides, sides, lengths, lengths, fractions, components, seeds)
def test_snapped_boxes_are_the_dense_ones(
    kind: str,
    height: int,
    width: int,
    rows: int,
    columns: int,
    threshold: float,
    component: str,
    seed: int,
) -> None:
    maps = random_maps(kind, 4, height, width, seed)
    maps = maps[maps.flatten(1).amax(1) > maps.flatten(1).amin(1)]
    maps = maps[maps.flatten(1).amax(1) > 0]
    _, wrong = disagreeing(maps, threshold, (rows, columns), component)
    assert not wrong.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_snapped_boxes_at_usual_sizes(kind: str, component: str) -> None:
    for index, threshold in enumerate((0.1, 0.3, 0.6, 0.9)):
        maps = random_maps(kind, 24, 18, 18, index)
        different, wrong = disagreeing(maps, threshold, (560, 560), component)
        assert different.sum() <= 1
        assert not wrong.any()


@given(
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([0.125, 0.25, 0.5, 0.75, 0.875, 1.0]),
    seeds,
)
def test_ties_are_exact(
    height: int, width: int, down: int, across: int, threshold: float, seed: int
) -> None:
    """With whole numbers and powers of two nothing is rounded: pixels at the threshold count."""
    maps = stepped_maps(8, height, width, seed)
    maps = maps[maps.flatten(1).amin(1) < 8]
    different, _ = disagreeing(maps, threshold, (height * down, width * across), "largest")
    assert not different.any()


def test_equally_large_components() -> None:
    """Of components with equally many pixels, the first in reading order counts."""
    maps = torch.zeros(2, 8, 8)
    maps[0, 1, 5] = maps[0, 5, 1] = maps[0, 6, 6] = 1
    maps[1, 1:3, 5] = maps[1, 2, 1:3] = 1
    boxes, _ = levelset_boxes(maps, 0.75, (64, 64), snap=True)
    expected, _ = dense_boxes(maps, 0.75, (64, 64))
    assert torch.equal(boxes, expected)
    assert boxes[0, 0] > 32
    assert boxes[0, 1] < 32


@pytest.mark.parametrize("snap", [True, False])
@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(
    "path",
    [spiral(25), spiral(40), spiral(31).flip(1), serpentine(33, 20), serpentine(20, 33).mT],
    ids=["spiral", "large spiral", "flipped spiral", "serpentine", "upright serpentine"],
)
def test_long_paths_are_one_component(path: Tensor, component: str, snap: bool) -> None:
    height, width = path.shape
    size = (height * 8, width * 8)
    maps = path.double().unsqueeze(0)
    boxes, valid = levelset_boxes(maps, 0.75, size, component=component, snap=snap)
    expected, _ = dense_boxes(maps, 0.75, size, component)
    assert valid.all()
    if snap:
        assert torch.equal(boxes.float(), expected)
    torch.testing.assert_close(boxes.float(), expected, atol=1, rtol=0)


def test_broken_path_falls_apart() -> None:
    path = spiral(25).double()
    whole, _ = levelset_boxes(path[None], 0.75, (200, 200), snap=True)
    path[12, :] = 0
    boxes, _ = levelset_boxes(path[None], 0.75, (200, 200), snap=True)
    expected, _ = dense_boxes(path[None], 0.75, (200, 200))
    assert torch.equal(boxes.float(), expected)
    assert not torch.equal(boxes, whole)


def test_walls_of_a_spiral() -> None:
    """Path and walls wind around each other: each is a component of its own."""
    path = spiral(25).double()
    maps = torch.stack((path, 1 - path))
    boxes, _ = levelset_boxes(maps, 0.75, (300, 300), snap=True)
    expected, _ = dense_boxes(maps, 0.75, (300, 300))
    assert torch.equal(boxes.float(), expected)


@given(kinds, fractions, seeds)
def test_masks_and_snapped_boxes_agree(kind: str, threshold: float, seed: int) -> None:
    maps = random_maps(kind, 3, 7, 9, seed)
    masked = mask_boxes(threshold_mask(maps, threshold, (35, 50)))
    snapped = levelset_boxes(maps, threshold, (35, 50), snap=True)
    same = (masked.boxes == snapped.boxes).all(1) & (masked.valid == snapped.valid)
    assert (same | ~settled(maps, threshold, (35, 50), "largest")).all()


# The continuous surface.


def test_by_hand() -> None:
    """A single cell of height 1: at 1/4, three quarters of a cell away on each side."""
    maps = torch.zeros(1, 5, 5)
    maps[0, 2, 3] = 1
    boxes, valid = levelset_boxes(maps, 0.25, (50, 100))
    assert valid.all()
    assert boxes.tolist() == [[20 * 3.5 - 15, 25 - 7.5, 20 * 3.5 + 15, 25 + 7.5]]


def test_regions_at_the_border_reach_it() -> None:
    maps = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    boxes, _ = levelset_boxes(maps, 0.5, (20, 30))
    assert boxes.tolist() == [[0, 0, 10, 10]]


@given(seeds, st.floats(0.1, 0.9), components)
@settings(max_examples=25)
def test_pixels_converge_to_the_surface(seed: int, threshold: float, component: str) -> None:
    generator = np.random.default_rng(seed)
    centers = torch.from_numpy(generator.uniform(2, 8, (1, 1, 2)))
    maps = bumps(centers, torch.tensor([[1.5]]), torch.tensor([[1.0]]), (11, 12))
    for scale in (8, 64):
        size = (11 * scale, 12 * scale)
        boxes, _ = levelset_boxes(maps, threshold, size, component=component)
        expected, found = dense_boxes(maps, threshold, size, component)
        if not found.all():  # a region so small that it falls between the pixels
            assert (boxes[:, 2:] - boxes[:, :2] <= 3).any()
            continue
        # The surface's edge lies within half a pixel of the outermost centre inside, and a
        # rounded end may leave another pixel outside.
        torch.testing.assert_close(boxes.float(), expected, atol=1.5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_surface_and_fine_pixels(kind: str, component: str) -> None:
    """Apart from necks and tips thinner than a pixel, the two answers are a pixel apart."""
    maps = random_maps(kind, 40, 18, 18, 3)
    for threshold in (0.3, 0.6):
        surface, _ = levelset_boxes(maps, threshold, (2520, 2520), component=component)
        pixels, _ = levelset_boxes(maps, threshold, (2520, 2520), component=component, snap=True)
        apart = (surface - pixels).abs().amax(1)
        assert (apart > 2).sum() <= 3
        assert apart.median() < 1


@given(kinds, sides, sides, fractions, components, seeds)
def test_symmetries(
    kind: str, height: int, width: int, threshold: float, component: str, seed: int
) -> None:
    maps = random_maps(kind, 3, height, width, seed).double()
    size = (40.0, 60.0)

    def boxes(maps: Tensor, size: tuple[float, float]) -> Tensor:
        sizes = torch.tensor(size).expand(len(maps), 2)
        return levelset_boxes(maps, threshold, sizes, component=component).boxes

    plain = boxes(maps, size)
    valid = levelset_boxes(maps, threshold, (40, 60), component=component).valid
    torch.testing.assert_close(boxes(maps, (80, 180)), plain * torch.tensor([3, 2, 3, 2]))
    torch.testing.assert_close(boxes(maps.mT, size[::-1]), plain[:, [1, 0, 3, 2]])
    flipped = 60 - boxes(maps.flip(2), size)[:, [2, 1, 0, 3]]
    torch.testing.assert_close(flipped[valid][:, ::2], plain[valid][:, ::2])
    assert torch.equal(boxes(maps * 2.0**40, size), plain)
    assert torch.equal(boxes(maps * 2.0**-70, size), plain)


@given(kinds, seeds, st.lists(st.floats(0.05, 1), min_size=2, max_size=6), st.booleans())
def test_peak_regions_shrink_with_the_threshold(
    kind: str, seed: int, thresholds: list[float], snap: bool
) -> None:
    maps = random_maps(kind, 1, 9, 9, seed)
    ordered = torch.tensor(sorted(thresholds))
    boxes, valid = levelset_boxes(
        maps.expand(len(ordered), -1, -1), ordered, (90, 90), component="peak", snap=snap
    )
    boxes = boxes[valid]
    slack = 1e-4
    assert (boxes[1:, :2] >= boxes[:-1, :2] - slack).all()
    assert (boxes[1:, 2:] <= boxes[:-1, 2:] + slack).all()


def test_largest_is_not_the_peak() -> None:
    centers = torch.tensor([[[4.0, 4.0], [13.0, 13.0]]])
    maps = bumps(centers, torch.tensor([[3.0, 1.0]]), torch.tensor([[0.8, 1.0]]), (18, 18))
    for snap in (False, True):
        largest, _ = levelset_boxes(maps, 0.5, (180, 180), snap=snap)
        peak, _ = levelset_boxes(maps, 0.5, (180, 180), component="peak", snap=snap)
        assert largest[0, 2] < 90 < peak[0, 0]


def test_threshold_one_is_the_maximum_alone() -> None:
    maps = torch.zeros(3, 4, 5)
    maps[0, 1, 2] = maps[1, 0, 0] = maps[2, 3, 2] = 7.3
    boxes, valid = levelset_boxes(maps, 1.0, (40, 50))
    assert valid.all()
    assert boxes.tolist() == [[25, 15, 25, 15], [0, 0, 5, 5], [25, 35, 25, 40]]
    # Among pixels the maximum is met where a centre lies on it, or in the corner.
    snapped, met = levelset_boxes(maps, 1.0, (40, 50), snap=True)
    assert met.tolist() == [False, True, False]
    assert snapped.tolist() == [[0] * 4, [0, 0, 5, 5], [0] * 4]
    snapped, met = levelset_boxes(maps, 1.0, (36, 45), snap=True)
    assert met.all()
    assert snapped[0].tolist() == [22, 13, 23, 14]


# Batches.


@pytest.mark.parametrize("snap", [True, False])
@pytest.mark.parametrize("component", COMPONENTS)
def test_thresholds_and_sizes_of_each_image(component: str, snap: bool) -> None:
    maps = random_maps("smooth", 6, 12, 9, 1)
    thresholds = torch.linspace(0.2, 0.9, 6)
    sizes = torch.tensor([[50, 60], [7, 5], [300, 20], [12, 9], [1, 1], [90, 121]])
    together = levelset_boxes(maps, thresholds, sizes, component=component, snap=snap)
    for index in range(6):
        height, width = sizes[index].tolist()
        alone = levelset_boxes(
            maps[index : index + 1],
            float(thresholds[index]),
            (height, width),
            component=component,
            snap=snap,
        )
        assert torch.equal(together.valid[index], alone.valid[0])
        torch.testing.assert_close(together.boxes[index], alone.boxes[0])


@pytest.mark.parametrize("snap", [True, False])
@pytest.mark.parametrize("component", COMPONENTS)
def test_degenerate_maps_leave_the_others_alone(component: str, snap: bool) -> None:
    good = random_maps("smooth", 2, 6, 7, 2)
    bad = torch.stack(
        [
            torch.full((6, 7), torch.nan),
            torch.zeros(6, 7),
            torch.full((6, 7), 3.0),
            -good[0].abs() - 1,
            good[1].clone().index_fill_(0, torch.tensor([2]), torch.nan),
            good[1].clone().index_fill_(0, torch.tensor([2]), torch.inf),
            good[1].clone().index_fill_(0, torch.tensor([2]), -torch.inf),
        ]
    )
    maps = torch.cat((good[:1], bad, good[1:])).requires_grad_()
    boxes, valid = levelset_boxes(maps, 0.5, (60, 70), component=component, snap=snap)
    assert valid.tolist() == [True, *[False] * 7, True]
    assert (boxes[1:-1] == 0).all()
    alone, _ = levelset_boxes(good, 0.5, (60, 70), component=component, snap=snap)
    assert torch.equal(boxes[[0, -1]], alone)
    if snap:
        assert not boxes.requires_grad
        return
    boxes.sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert (maps.grad[1:-1] == 0).all()
    assert (maps.grad[[0, -1]] != 0).any((1, 2)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (2, 2)])
@pytest.mark.parametrize("snap", [True, False])
def test_single_rows_and_columns(shape: tuple[int, int], snap: bool) -> None:
    maps = random_maps("rough", 8, *shape, 4).abs()
    boxes, valid = levelset_boxes(maps, 0.7, (24, 30), snap=snap)
    if shape == (1, 1):  # a constant map shows no place
        assert not valid.any()
        return
    expected, found = dense_boxes(maps, 0.7, (24, 30))
    assert found.all()
    torch.testing.assert_close(boxes, expected, atol=0 if snap else 1, rtol=0)
    if shape[0] == 1:
        assert (boxes[:, 1] == 0).all()
        assert (boxes[:, 3] == 24).all()


@pytest.mark.parametrize("snap", [True, False])
def test_thresholds_out_of_range_are_invalid(snap: bool) -> None:
    maps = random_maps("smooth", 1, 6, 6, 5).expand(5, -1, -1)
    thresholds = torch.tensor([0.5, 0.0, -1.0, 1.5, torch.nan])
    boxes, valid = levelset_boxes(maps, thresholds, (60, 60), snap=snap)
    assert valid.tolist() == [True, False, False, False, False]
    assert (boxes[1:] == 0).all()


@pytest.mark.parametrize("snap", [False, True])
@pytest.mark.parametrize("component", ["largest", "peak"])
def test_images_without_size_have_no_region(component: str, snap: bool) -> None:
    heatmaps = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[0, 0], [40, 50], [-5, 20]])
    boxes, valid = levelset_boxes(heatmaps, 0.5, sizes, component=component, snap=snap)  # type: ignore[arg-type]
    alone = levelset_boxes(heatmaps[1:2], 0.5, (40, 50), component=component, snap=snap)  # type: ignore[arg-type]
    assert valid.tolist() == [False, True, False]
    assert torch.equal(boxes[1:2], alone.boxes)
    assert (boxes[[0, 2]] == 0).all()


def test_no_images_with_sizes_of_their_own() -> None:
    boxes, valid = levelset_boxes(torch.rand(0, 4, 5), 0.5, torch.zeros(0, 2), snap=True)
    assert boxes.shape == (0, 4)
    assert valid.shape == (0,)


def test_no_images() -> None:
    for snap in (True, False):
        boxes, valid = levelset_boxes(torch.zeros(0, 5, 5), 0.5, (50, 50), snap=snap)
        assert boxes.shape == (0, 4)
        assert valid.shape == (0,)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-12, 1e12, 1e30, 3e37])
@pytest.mark.parametrize("snap", [True, False])
def test_any_scale(scale: float, snap: bool) -> None:
    maps = random_maps("rough", 8, 9, 9, 6)
    expected, _ = levelset_boxes(maps, 0.4, (90, 90), snap=snap)
    boxes, valid = levelset_boxes(maps * scale, 0.4, (90, 90), snap=snap)
    assert valid.all()
    torch.testing.assert_close(boxes, expected, atol=0.05, rtol=0)


# Gradients.


@pytest.mark.parametrize("component", COMPONENTS)
def test_gradients(component: str) -> None:
    maps = random_maps("rough", 3, 5, 6, 7).double().requires_grad_()
    thresholds = torch.tensor([0.35, 0.5, 0.8], dtype=torch.float64, requires_grad=True)

    def boxes(maps: Tensor, thresholds: Tensor) -> Tensor:
        return levelset_boxes(maps, thresholds, (50, 66), component=component).boxes

    assert boxes(maps, thresholds).requires_grad
    assert gradcheck(boxes, (maps, thresholds))
    one = torch.tensor(0.45, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda t: boxes(maps.detach(), t), (one,))


def test_training_can_move_a_box() -> None:
    maps = bumps(torch.tensor([[[4.0, 4.0]]]), torch.tensor([[1.5]]), torch.tensor([[1.0]]), (9, 9))
    maps = maps.requires_grad_()
    before, _ = levelset_boxes(maps, 0.5, (90, 90))
    (step,) = torch.autograd.grad(before[0, 2], maps)
    after, _ = levelset_boxes(maps + 1e-3 * step, 0.5, (90, 90))
    assert after[0, 2] > before[0, 2]


# Cost, dtypes, devices, errors.


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.numel())
        return result


def largest_tensor(run: Callable[[], object]) -> int:
    with Largest() as mode:
        run()
    return mode.numel


@pytest.mark.parametrize("snap", [True, False])
@pytest.mark.parametrize("component", COMPONENTS)
def test_memory_never_grows_as_the_image(component: str, snap: bool) -> None:
    maps = random_maps("smooth", 2, 6, 6, 0)

    def most(height: int, width: int) -> int:
        return largest_tensor(
            lambda: levelset_boxes(maps, 0.5, (height, width), component=component, snap=snap)
        )

    assert most(100, 10_000) == most(100, 100)
    if snap and component == "largest":
        assert most(1_000, 1_000) <= 10.1 * most(100, 100)
    else:
        assert most(10_000, 10_000) == most(100, 100)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("snap", [True, False])
def test_half_precision_is_computed_in_single(dtype: torch.dtype, snap: bool) -> None:
    maps = random_maps("smooth", 4, 8, 8, 8).to(dtype)
    boxes, valid = levelset_boxes(maps, 0.5, (100, 100), snap=snap)
    expected, _ = levelset_boxes(maps.float(), 0.5, (100, 100), snap=snap)
    assert boxes.dtype == torch.float32
    assert valid.all()
    assert torch.equal(boxes, expected)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("snap", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_device(device: torch.device, dtype: torch.dtype, component: str, snap: bool) -> None:
    maps = torch.rand(3, 6, 7, device=device).to(dtype)
    threshold = torch.full((3,), 0.5, device=device)
    regions = levelset_boxes(maps, threshold, (60, 70), component=component, snap=snap)
    assert isinstance(regions, Regions)
    assert regions.boxes.shape == (3, 4)
    assert regions.boxes.device.type == regions.valid.device.type == device.type
    assert regions.boxes.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert regions.valid.dtype == torch.bool
    if device.type == "cuda":
        expected = levelset_boxes(maps.cpu(), 0.5, (60, 70), component=component, snap=snap)
        torch.testing.assert_close(regions.boxes.cpu(), expected.boxes, atol=1e-3, rtol=0)


def test_errors() -> None:
    maps = torch.rand(2, 4, 4)
    with pytest.raises(
        ValueError, match=r"component: expected one of 'largest', 'peak', got 'all'"
    ):
        levelset_boxes(maps, 0.5, (8, 8), component="all")  # type: ignore[arg-type]
    for several in ([0.3, 0.5], np.array([0.3, 0.5])):
        with pytest.raises(
            TypeError, match=r"threshold: expected a number in \(0, 1\], got .*0\.3"
        ):
            levelset_boxes(maps, several, (8, 8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"heatmaps: expected shape \(N, h, w\), got \(4, 4\)"):
        levelset_boxes(maps[0], 0.5, (8, 8))
    with pytest.raises(TypeError, match=r"heatmaps: expected a tensor of floating dtype"):
        levelset_boxes(maps.long(), 0.5, (8, 8))
    for threshold in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"threshold: expected a number in \(0, 1\]"):
            levelset_boxes(maps, threshold, (8, 8))
    with pytest.raises(
        ValueError, match=r"threshold: expected shape \(N,\) with N = 2, got \(3,\)"
    ):
        levelset_boxes(maps, torch.full((3,), 0.5), (8, 8))
    with pytest.raises(ValueError, match=r"size: expected \(height, width\)"):
        levelset_boxes(maps, 0.5, (8, 0))
    with pytest.raises(ValueError, match=r"size: expected shape \(N, 2\) with N = 2, got \(3, 2\)"):
        levelset_boxes(maps, 0.5, torch.ones(3, 2))


@pytest.mark.long
@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(("count", "size"), [(10_000, (560, 560)), (1_000, (2000, 1500))])
def test_snapped_boxes_of_many_maps(count: int, size: tuple[int, int], component: str) -> None:
    """On smooth 18x18 maps; what differs hangs on the last bit of the dense path's arithmetic."""
    total = unexplained = 0
    for seed in range(count // 100):
        maps = random_maps("smooth", 100, 18, 18, seed)
        threshold = (0.1, 0.2, 0.3, 0.5, 0.7)[seed % 5]
        different, wrong = disagreeing(maps, threshold, size, component)
        total += int(different.sum())
        unexplained += int(wrong.sum())
    assert total <= count / 1000
    assert unexplained == 0
