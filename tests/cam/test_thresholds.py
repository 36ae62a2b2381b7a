import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from ldlcam.cam import (
    fraction_to_jet,
    jet_to_fraction,
    levelset_boxes,
    otsu_threshold,
    percentile_threshold,
    threshold_mask,
)
from tests.cam.maps import seeds, sides, stepped_maps

EPSILON = torch.finfo(torch.float32).eps
DEGENERATE = {
    "constant": torch.full((3, 4), 2.0),
    "negative": -torch.rand(3, 4) - 1,
    "nan": torch.full((3, 4), math.nan),
    "infinite": torch.tensor([[math.inf, 1.0], [0.0, 2.0]]),
    "single": torch.ones(1, 1),
}


def positive_maps(height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, height, width, generator=generator, dtype=torch.float64) + 0.1


# ------------------------------------------------------------------------------------ percentiles


@given(st.integers(2, 12), sides, st.floats(0, 100), seeds)
def test_percentile_is_that_of_numpy(height: int, width: int, percent: float, seed: int) -> None:
    maps = positive_maps(height, width, seed)
    flat = maps.flatten(1).numpy()
    expected = np.percentile(flat, percent, axis=1) / flat.max(axis=1)
    found = percentile_threshold(maps, percent)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=0)


@given(st.integers(2, 12), sides, st.integers(1, 99), seeds)
def test_percentile_keeps_its_share_of_cells(
    height: int, width: int, percent: int, seed: int
) -> None:
    maps = positive_maps(height, width, seed)
    kept = threshold_mask(maps, percentile_threshold(maps, percent)).sum((1, 2))
    cells = height * width
    assert ((kept - (1 - percent / 100) * cells).abs() <= 1 + 1e-9).all()


def test_the_cell_at_a_percentile_reaches_it() -> None:
    maps = torch.rand(2000, 5, 5, generator=torch.Generator().manual_seed(0))
    masks = threshold_mask(maps, percentile_threshold(maps, 50))
    assert (masks.sum((1, 2)) == 13).all()


def test_each_map_may_have_its_percentile() -> None:
    maps = positive_maps(5, 6, 1)
    percents = torch.tensor([10.0, 50.0, 99.0])
    found = percentile_threshold(maps, percents)
    for i in range(3):
        assert found[i] == percentile_threshold(maps[i : i + 1], percents[i].item())
    whole = percentile_threshold(maps, torch.tensor(50))
    assert torch.equal(whole, percentile_threshold(maps, 50))
    outside = percentile_threshold(maps, torch.tensor([-5.0, 130.0, math.nan]))
    assert torch.equal(outside, percentile_threshold(maps, torch.tensor([0.0, 100.0, 100.0])))


# ------------------------------------------------------------------------------------------- Otsu


def otsu_by_trying(values: np.ndarray) -> float:
    """Every split between different values: the one with the least variance within."""
    ordered = np.sort(values.ravel())
    best, threshold = math.inf, math.nan
    for k in range(1, len(ordered)):
        if ordered[k] > ordered[k - 1]:
            within = k * ordered[:k].var() + (len(ordered) - k) * ordered[k:].var()
            if within < best - 1e-12:
                best, threshold = within, (ordered[k] + ordered[k - 1]) / 2
    return threshold


@given(st.integers(2, 8), sides, seeds)
def test_otsu_is_the_best_of_all_splits(height: int, width: int, seed: int) -> None:
    maps = positive_maps(height, width, seed)
    expected = [otsu_by_trying(m.numpy()) / m.max().item() for m in maps]
    torch.testing.assert_close(otsu_threshold(maps), torch.tensor(expected, dtype=torch.float64))


@given(st.integers(3, 8), st.integers(2, 8), seeds)
def test_otsu_never_splits_equal_values(height: int, width: int, seed: int) -> None:
    maps = stepped_maps(2, height, width, seed)
    for heatmap, fraction in zip(maps, otsu_threshold(maps), strict=True):
        values = heatmap.unique()
        if len(values) > 1 and fraction > EPSILON:
            assert not (values == fraction * heatmap.max()).any() or fraction * 8 % 1 == 0.5
            below, above = values[values < fraction * 8], values[values >= fraction * 8]
            torch.testing.assert_close(fraction * 8, (below.max() + above.min()) / 2)


def test_otsu_parts_foreground_from_background_at_any_scale() -> None:
    dark, bright = torch.rand(1, 8, 5) * 0.2, 0.7 + torch.rand(1, 8, 3) * 0.3
    heatmap = torch.cat((dark, bright), 2)
    for scale in (1e-6, 1.0, 1e6):
        mask = threshold_mask(scale * heatmap, otsu_threshold(scale * heatmap))
        assert mask[..., 5:].all()
        assert not mask[..., :5].any()
    lifted = threshold_mask(heatmap + 1000, otsu_threshold(heatmap + 1000))
    assert torch.equal(lifted, mask)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_otsu_at_scales_whose_squares_have_no_room(scale: float) -> None:
    maps = torch.rand(20, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(otsu_threshold(maps * scale), otsu_threshold(maps))


def test_otsu_is_near_that_of_skimage() -> None:
    filters = pytest.importorskip("skimage.filters")
    heatmap = positive_maps(40, 50, 3)[:1] ** 3
    expected = filters.threshold_otsu(heatmap[0].numpy(), nbins=1024)
    assert otsu_threshold(heatmap) * heatmap.max() == pytest.approx(expected, abs=0.01)


# -------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("kind", DEGENERATE)
def test_a_map_without_a_place_has_the_threshold_one_and_disturbs_no_other(kind: str) -> None:
    bad = DEGENERATE[kind]
    good = torch.rand(bad.shape) + 0.1
    for function in (otsu_threshold, lambda maps: percentile_threshold(maps, 70)):
        found = function(torch.stack((bad, good)))
        assert found[0] == 1
        if good.numel() > 1:
            assert found[1] == function(good[None])[0]
        assert not levelset_boxes(torch.stack((bad, good)), found, (64, 64)).valid[0]


def test_mostly_negative_maps_keep_what_is_above_zero() -> None:
    heatmap = torch.full((1, 6, 6), -1.0)
    heatmap[0, 2, 2:4] = torch.tensor([1e-3, 2.0])
    found = percentile_threshold(heatmap, 50)
    assert found == EPSILON
    assert threshold_mask(heatmap, found).sum() == 2
    heatmap[0, 0, 0] = -1000
    assert otsu_threshold(heatmap) == EPSILON


def test_gradients() -> None:
    maps = positive_maps(3, 4, 2).requires_grad_()
    assert gradcheck(lambda m: percentile_threshold(m, 63.0), (maps,))
    assert gradcheck(otsu_threshold, (maps,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_device(device: torch.device, dtype: torch.dtype) -> None:
    maps = torch.rand(2, 5, 6, device=device).to(dtype)
    for found in (otsu_threshold(maps), percentile_threshold(maps, 80)):
        assert found.shape == (2,)
        assert found.dtype == torch.float32
        assert found.device.type == device.type


def test_compiles() -> None:
    maps = torch.rand(2, 5, 6)

    def both(maps: Tensor) -> tuple[Tensor, Tensor]:
        return otsu_threshold(maps), percentile_threshold(maps, 80)

    compiled = torch.compile(both, backend="eager", fullgraph=True)
    for found, expected in zip(compiled(maps), both(maps), strict=True):
        torch.testing.assert_close(found, expected)


def test_errors() -> None:
    maps = torch.rand(2, 3, 3)
    for value in (-1, 101, math.nan):
        with pytest.raises(ValueError, match=r"percentile: expected a number in \[0, 100\], got"):
            percentile_threshold(maps, value)
    with pytest.raises(TypeError, match=r"percentile: expected a number in \[0, 100\], got '50'"):
        percentile_threshold(maps, "50")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"percentile: expected shape \(N,\) with N = 2"):
        percentile_threshold(maps, torch.tensor([50.0]))
    for function in (otsu_threshold, lambda m: percentile_threshold(m, 50)):
        with pytest.raises(ValueError, match=r"heatmaps: expected shape \(N, h, w\)"):
            function(maps[0])


# --------------------------------------------------------------------------------------------- JET

# OpenCV's COLORMAP_JET, converted to grey by cvtColor, at some of the levels 0 to 159.
JET = {0: 15, 1: 15, 2: 16, 10: 19, 13: 21, 31: 29, 32: 29, 33: 31, 41: 50, 42: 53, 54: 81}
JET |= {95: 177, 96: 179, 97: 180, 98: 181, 120: 197, 145: 216, 158: 225, 159: 226}


@pytest.mark.parametrize(("level", "grey"), JET.items())
def test_grey_values_are_those_of_opencv(level: int, grey: int) -> None:
    if level > 1:
        assert jet_to_fraction(grey) <= level / 255 < jet_to_fraction(min(grey + 1, 226)) + 1e-9
        assert fraction_to_jet(level / 255) == grey


def test_grey_values_are_all_those_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    levels = np.arange(256, dtype=np.uint8)[:, None]
    greys = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2GRAY)[:160, 0]
    assert [fraction_to_jet(level / 255) for level in range(1, 160)] == greys[1:].tolist()


PUBLISHED = {20: 0.051, 30: 0.129, 40: 0.145, 50: 0.165, 60: 0.18, 80: 0.212}


@pytest.mark.parametrize(("tau", "fraction"), PUBLISHED.items())
def test_published_thresholds(tau: int, fraction: float) -> None:
    assert round(jet_to_fraction(tau, strict=True), 3) == fraction
    assert jet_to_fraction(tau) <= jet_to_fraction(tau, strict=True)


@pytest.mark.parametrize("strict", [False, True])
@given(st.integers(1, 159))
def test_there_and_back(strict: bool, level: int) -> None:
    tau = fraction_to_jet(level / 255, strict=strict)
    if level > 1:
        back = jet_to_fraction(tau, strict=strict)
        assert level - 2 <= round(back * 255) <= level
        assert fraction_to_jet(back, strict=strict) == tau


@pytest.mark.parametrize("tau", [-3, 0, 10, 15, 227, 255, math.nan])
def test_thresholds_that_cannot_be_inverted(tau: float) -> None:
    with pytest.raises(ValueError, match=r"tau: expected a grey value in \(15, 226\], got"):
        jet_to_fraction(tau)
    if tau != 15:
        with pytest.raises(ValueError, match=r"tau: expected a grey value in \[15, 226\), got"):
            jet_to_fraction(tau, strict=True)


@pytest.mark.parametrize("fraction", [0, -0.1, 0.63, 1.0, math.nan])
def test_fractions_that_cannot_be_inverted(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction: expected a number in \(0, 0.624\], beyond"):
        fraction_to_jet(fraction)


def test_grey_values_and_fractions_are_numbers() -> None:
    for value in (None, "50", np.array([50.0, 60.0])):
        with pytest.raises(TypeError, match=r"tau: expected a grey value in \(15, 226\], got"):
            jet_to_fraction(value)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"fraction: expected a number in \(0, 0.624\], beyond"):
            fraction_to_jet(value)  # type: ignore[arg-type]
