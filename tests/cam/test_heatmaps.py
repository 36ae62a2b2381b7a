import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from ldlcam.cam import (
    CAMHead,
    class_activation_map,
    levelset_boxes,
    normalize_heatmaps,
    trim_heatmaps,
    valid_heatmaps,
)
from tests.cam.maps import random_maps, seeds

POOR = {
    "constant": torch.full((3, 4), 2.0),
    "zero": torch.zeros(3, 4),
    "negative": -torch.rand(3, 4) - 1,
    "nan": torch.tensor([[0.0, torch.nan, 1.0, 2.0]] * 3),
    "inf": torch.tensor([[0.0, torch.inf, 1.0, 2.0]] * 3),
    "-inf": torch.tensor([[0.0, -torch.inf, 1.0, 2.0]] * 3),
}


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 9), seeds)
def test_maps_are_weighted_sums(num_classes: int, channels: int, window: int, seed: int) -> None:
    """Against loops over images, classes and channels."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((3, channels, 4, 5))
    weight = generator.standard_normal((num_classes, channels))
    classes = generator.integers(0, num_classes, 3)
    expected = np.zeros((3, 4, 5))
    for image, chosen in enumerate(classes):
        first, last = max(chosen - window, 0), min(chosen + window, num_classes - 1)
        for channel in range(channels):
            mean = sum(weight[t, channel] for t in range(first, last + 1)) / (last + 1 - first)
            expected[image] += mean * features[image, channel]
    found = class_activation_map(
        torch.from_numpy(features),
        torch.from_numpy(weight),
        torch.from_numpy(classes),
        window=window,
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_windows_at_the_ends_have_fewer_classes() -> None:
    weight = torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0]])
    features = torch.ones(5, 1, 1, 1)
    maps = class_activation_map(features, weight, torch.arange(5), window=1)
    assert maps.flatten().tolist() == pytest.approx([1.5, 7 / 3, 14 / 3, 28 / 3, 12])


def test_broken_neighbours_outside_the_window_do_not_matter() -> None:
    weight = torch.tensor([[torch.nan], [1.0], [2.0], [torch.inf]])
    maps = class_activation_map(torch.ones(1, 1, 2, 2), weight, torch.tensor([1]))
    assert (maps == 1).all()


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("chosen", [-1, 4])
def test_classes_out_of_range_raise(chosen: int, window: int) -> None:
    with pytest.raises(IndexError):
        class_activation_map(
            torch.ones(1, 3, 2, 2), torch.ones(4, 3), torch.tensor([chosen]), window=window
        )


@pytest.mark.parametrize("window", [0, 1])
def test_map_gradients(window: int) -> None:
    features = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    classes = torch.tensor([0, 2])

    def maps(features: Tensor, weight: Tensor) -> Tensor:
        return class_activation_map(features, weight, classes, window=window)

    assert gradcheck(maps, (features, weight))


@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_classes_of_any_integer_dtype(dtype: torch.dtype, window: int) -> None:
    features, weight, classes = torch.rand(2, 3, 2, 2), torch.rand(4, 3), torch.tensor([0, 2])
    expected = class_activation_map(features, weight, classes, window=window)
    found = class_activation_map(features, weight, classes.to(dtype), window=window)
    assert torch.equal(found, expected)


def test_map_errors() -> None:
    features, weight, classes = torch.ones(2, 3, 4, 4), torch.ones(5, 3), torch.tensor([0, 1])
    with pytest.raises(
        ValueError, match=r"weight: expected shape \(T, C\) with C = 3, got \(5, 4\)"
    ):
        class_activation_map(features, torch.ones(5, 4), classes)
    with pytest.raises(
        ValueError, match=r"classes: expected shape \(N,\) with N = 2, got \(2, 1\)"
    ):
        class_activation_map(features, weight, classes[:, None])
    with pytest.raises(TypeError, match="classes: expected a tensor of integer dtype"):
        class_activation_map(features, weight, classes.float())
    with pytest.raises(ValueError, match="window: expected an integer of at least 0, got -1"):
        class_activation_map(features, weight, classes, window=-1)
    with pytest.raises(ValueError, match=r"features: expected shape \(N, C, h, w\)"):
        class_activation_map(features[0], weight, classes)


@given(seeds)
def test_normalized_maps_reach_from_zero_to_one(seed: int) -> None:
    maps = random_maps("rough", 3, 4, 5, seed)
    normal = normalize_heatmaps(maps)
    assert torch.equal(normal.flatten(1).amax(1), torch.ones(3))
    assert (normal >= 0).all()
    positive = maps > 0
    ratio = normal * maps.amax((1, 2))[:, None, None]
    torch.testing.assert_close(ratio[positive], maps[positive])
    assert (normal[~positive] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", POOR)
def test_poor_maps_become_zeros(name: str, dtype: torch.dtype) -> None:
    good = random_maps("smooth", 1, 3, 4, 1)
    maps = torch.cat((good, POOR[name].unsqueeze(0), good)).to(dtype).requires_grad_()
    assert valid_heatmaps(maps).tolist() == [True, False, True]
    normal = normalize_heatmaps(maps)
    assert normal.dtype == dtype
    assert (normal[1] == 0).all()
    assert normal[0].max() == normal[2].max() == 1
    normal.sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert (maps.grad[1] == 0).all()


@pytest.mark.parametrize("scale", [6e-5, 6e4])
def test_normalization_in_half_precision(scale: float) -> None:
    """A small maximum is no reason for NaN, nor a large one for infinities."""
    maps = torch.tensor([[[0.0, 0.5, 1.0]]]) * scale
    normal = normalize_heatmaps(maps.half())
    torch.testing.assert_close(normal.float(), maps / scale, atol=2e-3, rtol=0)


def test_normalization_gradients() -> None:
    maps = random_maps("rough", 2, 3, 3, 2).double().requires_grad_()
    assert gradcheck(normalize_heatmaps, (maps,))


@given(st.integers(2, 6), st.integers(2, 6), st.integers(1, 17), st.integers(1, 4), seeds)
def test_trimmed_maps_are_read_at_their_cells_centres(
    height: int, width: int, stride: int, factor: int, seed: int
) -> None:
    """Against numpy's interpolation between the pixels that the old cells look at."""
    maps = np.random.default_rng(seed).standard_normal((2, height, width))
    found = trim_heatmaps(torch.from_numpy(maps), stride, factor=factor)
    assert found.shape == (2, factor * (height - 1), factor * (width - 1))
    for axis, cells in ((1, height), (2, width)):
        looks_at = stride * np.arange(cells) + 0.5
        pixels, count = stride * (cells - 1) + 1, factor * (cells - 1)
        wanted = (np.arange(count) + 0.5) * pixels / count
        maps = np.apply_along_axis(lambda row: np.interp(wanted, looks_at, row), axis, maps)  # noqa: B023
    np.testing.assert_allclose(found.numpy(), maps, rtol=1e-12, atol=1e-12)


def strided(images: Tensor, padding: str) -> Tensor:
    """Three strided convolutions that add up what they see, padded as one of the two kinds does."""
    for _ in range(3):
        total = [max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in images.shape[:1:-1]]
        both = [(1, 1) if padding == "both sides" else (all // 2, all - all // 2) for all in total]
        images = F.conv2d(F.pad(images, [*both[0], *both[1]]), torch.ones(1, 1, 3, 3), stride=2)
    return images


@pytest.mark.parametrize("padding", ["both sides", "same"])
def test_a_spot_is_found_where_it_is(padding: str) -> None:
    def centre_found(side: int) -> float:
        images = torch.zeros(1, 1, side, side)
        images[..., 30:44, 30:44] = 1  # centred on 37
        maps = strided(images, padding)[:, 0]
        maps = trim_heatmaps(maps, 8) if side % 8 == 1 else maps
        x1, y1, x2, y2 = levelset_boxes(maps, 0.5, (side, side)).boxes[0].tolist()
        assert (x1, x2) == pytest.approx((y1, y2))
        return (x1 + x2) / 2

    assert centre_found(97) == pytest.approx(37, abs=0.5)
    # Half a cell, less half a pixel, to one side or the other.
    off = 3.5 if padding == "both sides" else -3.5
    assert centre_found(96) == pytest.approx(37 + off, abs=0.5)


@pytest.mark.parametrize("padding", ["both sides", "same"])
def test_a_mirrored_image_has_the_mirrored_map(padding: str) -> None:
    images = torch.rand(1, 1, 97, 97)
    maps, mirrored = (strided(one, padding)[:, 0] for one in (images, images.flip(3)))
    torch.testing.assert_close(trim_heatmaps(mirrored, 8).flip(2), trim_heatmaps(maps, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("stride", [1, 7, 8, 16, 32])
def test_a_trimmed_constant_map_shows_no_place(stride: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(stride)
    levels = torch.rand(300, 1, 1, generator=generator) * 10 + 0.01
    trimmed = trim_heatmaps(levels.expand(-1, 8, 8).to(dtype), stride)
    assert not valid_heatmaps(trimmed).any()


@pytest.mark.parametrize("pool", ["avg", "max", "lse", "gem"])
def test_maps_of_constant_features_show_no_place(pool: str) -> None:
    """Products round differently from place to place."""
    features = torch.rand(40, 512, 1, 1, generator=torch.Generator().manual_seed(0))
    head = CAMHead(512, 3, pool=pool)
    torch.nn.init.uniform_(head.weight)  # without cancellation, which has no bound
    assert not valid_heatmaps(head.heatmaps(features.expand(-1, -1, 7, 9))).any()


def test_trimming_keeps_bad_maps_to_themselves() -> None:
    good = torch.rand(4, 5)
    maps = torch.stack((good, good * torch.nan, good))
    found = trim_heatmaps(maps, 8)
    assert valid_heatmaps(found).tolist() == [True, False, True]
    torch.testing.assert_close(found[2:], trim_heatmaps(good[None], 8))


def test_trimming_gradients() -> None:
    maps = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda maps: trim_heatmaps(maps, 8), maps)


def test_trimming_errors() -> None:
    for maps in (torch.rand(2, 1, 4), torch.rand(2, 4, 1)):
        with pytest.raises(ValueError, match=r"heatmaps: expected .* h and w at least 2, got"):
            trim_heatmaps(maps, 8)
    with pytest.raises(ValueError, match="stride: expected an integer of at least 1, got 0"):
        trim_heatmaps(torch.rand(2, 3, 4), 0)
    with pytest.raises(ValueError, match="factor: expected an integer of at least 1, got 0"):
        trim_heatmaps(torch.rand(2, 3, 4), 8, factor=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_trimming_on_any_device(device: torch.device, dtype: torch.dtype) -> None:
    found = trim_heatmaps(torch.rand(2, 3, 4, device=device, dtype=dtype), 8)
    assert found.shape == (2, 4, 6)
    assert (found.dtype, found.device.type) == (dtype, device.type)
    assert trim_heatmaps(torch.rand(0, 3, 4), 8).shape == (0, 4, 6)


def test_no_images() -> None:
    assert normalize_heatmaps(torch.zeros(0, 3, 3)).shape == (0, 3, 3)
    features, classes = torch.zeros(0, 8, 5, 6), torch.zeros(0, dtype=torch.int64)
    for window in (0, 1):
        found = class_activation_map(features, torch.rand(4, 8), classes, window=window)
        assert found.shape == (0, 5, 6)


@pytest.mark.parametrize("shape", [(3, 0, 6), (3, 6, 0), (0, 0, 0)])
def test_maps_without_cells_are_refused(shape: tuple[int, ...]) -> None:
    for function in (valid_heatmaps, normalize_heatmaps):
        with pytest.raises(ValueError, match=r"heatmaps: expected .* h and w at least 1, got"):
            function(torch.zeros(shape))


def test_compiles() -> None:
    features, weight = torch.randn(2, 3, 4, 4), torch.randn(5, 3)
    classes = torch.tensor([1, 4])

    def path(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
        return normalize_heatmaps(class_activation_map(features, weight, classes, window=1))

    compiled = torch.compile(path, backend="eager", fullgraph=True)
    assert torch.equal(compiled(features, weight, classes), path(features, weight, classes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_device(device: torch.device, dtype: torch.dtype) -> None:
    features = torch.rand(2, 3, 4, 5, device=device, dtype=dtype)
    weight = torch.rand(6, 3, device=device)
    classes = torch.tensor([0, 5], device=device)
    maps = class_activation_map(features, weight, classes, window=2)
    normal = normalize_heatmaps(maps)
    for result in (maps, normal):
        assert result.shape == (2, 4, 5)
        assert result.dtype == dtype
        assert result.device.type == device.type
    assert valid_heatmaps(maps).device.type == device.type
