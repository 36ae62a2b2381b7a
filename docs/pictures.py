"""The pictures of the pages, made by the code of the tutorial: python docs/pictures.py [FOLDER]."""

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn import functional as F

from ldlcam import (
    AttentionCascade,
    levelset_boxes,
    plot_regions,
    plot_threshold_sweep,
    threshold_mask,
    trim_heatmaps,
)

DOCS = Path(__file__).parent
BLUE, ORANGE, GREEN = "#1f77b4", "#ff7f0e", "#2ca02c"


def tutorial() -> dict[str, Any]:
    """What the code of the tutorial has made, its trained network among it."""
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    made: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(code, made)
    return made


def outline(axes: Any, box: Tensor, color: str, label: str = "") -> None:
    """Draw a box."""
    x1, y1, x2, y2 = box.tolist()
    edge = {"fill": False, "edgecolor": color, "linewidth": 2, "label": label}
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **edge))


def panels(count: int) -> tuple[Figure, list[Any]]:
    """A figure with panels for images, side by side."""
    figure = Figure(figsize=(3.2 * count, 3.5), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for one in axes:
        one.set_axis_off()
    return figure, axes


def level_set(_: dict[str, Any]) -> Figure:
    """Coarse cells, the surface between their centres, and the pixels that are in."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    hills = [((2.7, 4.6), 1.2, 1.0), ((5.6, 1.6), 0.8, 0.8)]
    heatmap = sum(
        height * torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))
        for (y, x), width, height in hills
    )[None]
    size, threshold = (48, 48), 0.4
    large = F.interpolate(heatmap[None], size, mode="bilinear")[0, 0]
    (exact,) = levelset_boxes(heatmap, threshold, size).boxes
    (mask,) = threshold_mask(heatmap, threshold, size)
    figure, (cells, surface, pixels) = panels(3)
    extent = (0, 48, 48, 0)
    cells.imshow(heatmap[0].numpy(), cmap="viridis", extent=extent)
    cells.set_title("8 x 8 cells: all that is computed with", fontsize=9)
    surface.imshow(large.numpy(), cmap="viridis", extent=extent)
    centres = (torch.arange(48) + 0.5).numpy()
    level = float(threshold * heatmap.max())
    surface.contour(centres, centres, large.numpy(), [level], colors="white", linewidths=1)
    outline(surface, exact, ORANGE)
    surface.set_title("the surface, its level, the box", fontsize=9)
    pixels.imshow(mask.numpy(), cmap="gray", extent=extent)
    outline(pixels, exact, ORANGE)
    pixels.set_title("the same box over 48 x 48 pixels", fontsize=9)
    return figure


def alignment(made: dict[str, Any]) -> Figure:
    """The same images at an even number of strides, and at one pixel more."""
    # The first image of each kind, of those that the network tells.
    told = made["scores"].argmax(1) == made["labels"]
    chosen = [int((told & (made["labels"] == kind)).nonzero()[0]) for kind in range(3)]
    originals, truth = made["originals"][chosen], made["truth"][chosen]
    found = {}
    for side in (128, 129):
        small = F.interpolate(originals, (side, side), mode="bilinear", antialias=True)
        with torch.no_grad():
            maps = made["head"].heatmaps(made["features"](small), made["labels"][chosen])
        maps = trim_heatmaps(maps, 8) if side == 129 else maps
        found[side] = levelset_boxes(maps, made["sweep"].best, (512, 512)).boxes
    figure, axes = panels(len(chosen))
    for one, image, true, off, right in zip(
        axes, originals[:, 0], truth, found[128], found[129], strict=True
    ):
        one.imshow(image.numpy(), cmap="gray", extent=(0, 512, 512, 0))
        outline(one, true, GREEN, "drawn")
        outline(one, off, ORANGE, "found at 128 pixels")
        outline(one, right, BLUE, "found at 129 pixels, trimmed")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def apart(boxes: Tensor, among: Tensor) -> tuple[int, int]:
    """The first two of some boxes (N, 4) with a gap between them."""
    for a, b in itertools.combinations(among.nonzero().flatten().tolist(), 2):
        gaps = torch.cat((boxes[a, :2] - boxes[b, 2:], boxes[b, :2] - boxes[a, 2:]))
        if gaps.max() > 30:
            return a, b
    raise ValueError("no two boxes lie apart")


def cascade(made: dict[str, Any]) -> Figure:
    """Two squares in each image: find one, erase it, find the other."""
    truth, labels = made["truth"], made["labels"]
    pairs = [apart(truth, labels == kind) for kind in range(3)]
    images = torch.stack([made["originals"][list(pair)].amax(0) for pair in pairs])

    def striped(seen: Tensor) -> Tensor:
        small = F.interpolate(seen, (129, 129), mode="bilinear", antialias=True)
        with torch.no_grad():
            maps = made["head"].heatmaps(made["features"](small), torch.arange(3))
        return trim_heatmaps(maps, 8)

    steps = AttentionCascade([striped, striped], threshold=float(made["sweep"].best), fill="mean")
    boxes, _, maps, seen = steps(images)
    names = ("first", "second")
    return plot_regions(
        images,
        dict(zip(names, maps, strict=True)),
        dict(zip(names, boxes.unbind(1), strict=True)),
        seen={"second": seen[1]},
    )


PICTURES: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "tutorial.jpg": lambda made: made["figure"],
    "sweep.png": lambda made: plot_threshold_sweep({"stripes": made["sweep"]}),
    "level-set.png": level_set,
    "alignment.jpg": alignment,
    "cascade.jpg": cascade,
}


def main(folder: Path) -> None:
    """Make all pictures."""
    made = tutorial()
    for name, draw in PICTURES.items():
        draw(made).savefig(folder / name, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "pictures")
