import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from torch import Tensor

from ldlcam.cam import (
    ThresholdSweepResult,
    overlay_heatmaps,
    plot_regions,
    plot_threshold_sweep,
    threshold_sweep,
)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("colormap", ["turbo", "viridis"])
def test_overlay_by_hand(channels: int, colormap: str) -> None:
    images, heatmaps = torch.rand(2, channels, 12, 15), torch.randn(2, 4, 5)
    found = overlay_heatmaps(images, heatmaps, opacity=0.7, colormap=colormap)
    for image, heatmap, picture in zip(images, heatmaps, found, strict=True):
        heat = heatmap.clamp(min=0) / heatmap.max()
        heat = F.interpolate(heat[None, None], size=(12, 15), mode="bilinear")[0, 0].numpy()
        colours = colormaps[colormap](heat)[..., :3].transpose(2, 0, 1)
        expected = (1 - 0.7 * heat) * image.numpy() + 0.7 * heat * colours
        # A colour map has 256 steps.
        np.testing.assert_allclose(picture, expected, atol=0.04)


@pytest.mark.parametrize("value", [0.0, 2.0, -1.0, math.nan, math.inf])
def test_a_map_that_shows_no_place_covers_nothing(value: float) -> None:
    image = torch.rand(1, 1, 6, 6)
    found = overlay_heatmaps(image, torch.full((1, 3, 3), value))
    torch.testing.assert_close(found, image.expand(1, 3, 6, 6))


def regions() -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    images = torch.rand(3, 1, 40, 30)
    heatmaps = {name: torch.rand(3, 5, 4) for name in ("hand", "carpals", "knuckles")}
    boxes = {name: torch.tensor([[3.0, 4.0, 23.0, 34.0]]).repeat(3, 1) for name in heatmaps}
    boxes["carpals"][1] = 0
    return images, heatmaps, boxes


def test_rows_of_eight_panels() -> None:
    images, heatmaps, boxes = regions()
    figure = plot_regions(images, heatmaps, boxes, seen={"knuckles": images * 0.5})
    assert len(figure.axes) == 3 * 8
    titles = [axes.get_title() for axes in figure.axes[:8]]
    assert titles == [
        "image", "hand\nheat map", "hand\ncrop", "carpals\nheat map", "carpals\ncrop",
        "knuckles\nseen", "knuckles\nheat map", "knuckles\ncrop",
    ]  # fmt: skip
    box = figure.axes[8 + 1].patches[0]
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (3, 4, 20, 30)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    np.testing.assert_allclose(shown[8 + 5], 0.5 * images[1, 0], atol=1e-6)
    assert shown[2].shape == (40, 27)  # 20 x 30, as tall as the image
    assert shown[8 + 4].shape == (40, 30)  # no region: the whole image
    figure.canvas.draw()


def test_sweeps_have_a_line_each_and_a_dot_at_the_best() -> None:
    targets = torch.tensor([[8.0, 8.0, 24.0, 32.0]]).repeat(4, 1)
    sweeps = {
        name: threshold_sweep(torch.rand(4, 5, 5), targets, [0.2, 0.4, 0.6], (40, 40))
        for name in ("a", "b")
    }
    overlap, shares = plot_threshold_sweep(sweeps).axes
    for axes, field in ((overlap, "mean_iou"), (shares, "ap50")):
        for i, sweep in enumerate(sweeps.values()):
            line, dot = axes.lines[2 * i : 2 * i + 2]
            values = getattr(sweep, field)
            np.testing.assert_allclose(line.get_ydata(), values)
            assert dot.get_xdata()[0] == sweep.best
            assert dot.get_ydata()[0] == values[sweep.mean_iou.argmax()]
    assert [text.get_text() for text in overlap.get_legend().get_texts()] == ["a", "b"]


def test_sweeps_of_maps_with_gradients() -> None:
    maps = torch.rand(4, 5, 5, requires_grad=True)
    targets = torch.tensor([[8.0, 8.0, 24.0, 32.0]]).repeat(4, 1)
    sweep = threshold_sweep(maps, targets, [0.2, 0.5], (40, 40))
    assert sweep.mean_iou.requires_grad
    line = plot_threshold_sweep({"a": sweep}).axes[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), sweep.mean_iou.detach())


def test_errors() -> None:
    images, heatmaps, boxes = regions()
    with pytest.raises(ValueError, match="images: expected 1 or 3 channels, got 2"):
        overlay_heatmaps(torch.rand(3, 2, 8, 8), heatmaps["hand"])
    with pytest.raises(ValueError, match=r"opacity: expected a number in \[0, 1\], got 2"):
        overlay_heatmaps(images, heatmaps["hand"], opacity=2)
    with pytest.raises(TypeError, match=r"opacity: expected a number in \[0, 1\], got None"):
        overlay_heatmaps(images, heatmaps["hand"], opacity=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="colormap: expected the name of one of matplotlib's"):
        overlay_heatmaps(images, heatmaps["hand"], colormap="x")
    with pytest.raises(ValueError, match=r"heatmaps: expected shape \(N, h, w\) with N = 3"):
        overlay_heatmaps(images, heatmaps["hand"][:2])
    with pytest.raises(ValueError, match="boxes: expected the names"):
        plot_regions(images, heatmaps, {"hand": boxes["hand"]})
    with pytest.raises(ValueError, match=r"seen: expected shape \(N, C, H, W\) with N = 3"):
        plot_regions(images, heatmaps, boxes, seen={"hand": images[..., ::2]})
    with pytest.raises(ValueError, match="images: expected at least one, got none"):
        plot_regions(images[:0], {}, {})
    with pytest.raises(ValueError, match="seen: expected names among"):
        plot_regions(images, heatmaps, boxes, seen={"foot": images})
    with pytest.raises(ValueError, match=r"boxes: expected shape \(N, 4\) with N = 3"):
        plot_regions(images, heatmaps, {name: box[:2] for name, box in boxes.items()})
    no_sweeps: dict[str, ThresholdSweepResult] = {}
    with pytest.raises(ValueError, match="sweeps: expected at least one, got none"):
        plot_threshold_sweep(no_sweeps)
    with pytest.raises(TypeError, match="sweeps: expected a mapping by names, got list"):
        plot_threshold_sweep([])  # type: ignore[arg-type]
