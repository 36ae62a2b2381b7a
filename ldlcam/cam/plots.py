"""Figures of what was found: heat maps over images, rows of regions, sensitivity to a threshold.

Matplotlib is imported where it is used: `pip install ldlcam[plots]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldlcam._check import check_mapping, check_number, check_tensor
from ldlcam.cam.boxes import fill_boxes
from ldlcam.cam.crops import crop_and_resize
from ldlcam.cam.heatmaps import normalize_heatmaps
from ldlcam.cam.metrics import ThresholdSweepResult
from ldlcam.cam.regions import resize_heatmaps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def overlay_heatmaps(
    images: Tensor, heatmaps: Tensor, *, opacity: float = 0.6, colormap: str = "turbo"
) -> Tensor:
    """Images with heat maps laid over them in colour; cold places stay clear.

    Maps are upsampled bilinearly and count from 0 to their maximum. A place as hot as the maximum
    is covered by the colour map's last colour to the given opacity, one half as hot by the middle
    colour to half of it. A map that shows no place (`valid_heatmaps`) covers nothing.

    Args:
        images: (N, C, H, W), floating in [0, 1], C of 1 (grey) or 3 (red, green, blue).
        heatmaps: Heat maps, (N, h, w), floating.
        opacity: How much of the image the hottest place hides, in [0, 1].
        colormap: The name of one of matplotlib's colour maps.

    Returns:
        Red, green and blue in [0, 1], (N, 3, H, W) float32, on the images' device.

    Raises:
        TypeError: If an argument is not a tensor of the expected kind, or the opacity no number.
        ValueError: If the shapes do not fit together, the opacity is not in [0, 1], or matplotlib
            has no such colour map.

    Example:
        >>> import torch
        >>> from ldlcam import overlay_heatmaps
        >>> overlay_heatmaps(torch.rand(2, 1, 64, 48), torch.rand(2, 8, 6)).shape
        torch.Size([2, 3, 64, 48])
    """
    from matplotlib import colormaps

    check_tensor("images", images, "N C H W", "floating")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images: expected 1 or 3 channels, got {images.shape[1]}")
    check_tensor("heatmaps", heatmaps, "N h w", "floating", N=images.shape[0])
    check_number("opacity", opacity, "a number in [0, 1]", lambda number: 0 <= number <= 1)
    if colormap not in colormaps:
        raise ValueError(
            f"colormap: expected the name of one of matplotlib's colour maps, got {colormap!r}"
        )
    size = (images.shape[2], images.shape[3])
    heat = resize_heatmaps(normalize_heatmaps(heatmaps.float()), size)
    table = torch.tensor(colormaps[colormap].resampled(256)(range(256)), dtype=torch.float32)
    colours = table.to(images.device)[(heat * 255).round().long(), :3].movedim(3, 1)
    covered = opacity * heat.unsqueeze(1)
    return (1 - covered) * images.float().expand(-1, 3, -1, -1) + covered * colours


def plot_regions(
    images: Tensor,
    heatmaps: Mapping[str, Tensor],
    boxes: Mapping[str, Tensor],
    *,
    seen: Mapping[str, Tensor] | None = None,
    size: float = 1.6,
) -> Figure:
    """A row of pictures for each image: itself, and each region's heat map, box and crop.

    With a hand region, Region 1, Region 2 and the images that Region 2's network saw (`seen`),
    these are the eight panels of Chen et al.'s Fig. 3.

    Args:
        images: (N, C, H, W), floating in [0, 1], C of 1 or 3.
        heatmaps: Each region's heat maps, (N, h, w), by the region's name.
        boxes: Each region's boxes, (N, 4) in pixels of the images, by the same names. Where one
            has no area, the crop is the whole image.
        seen: Images (N, C, H, W) that a region was found on, where those are not `images`.
        size: Width and height of a picture in inches.

    Returns:
        The figure.

    Raises:
        ValueError: If names or shapes do not fit together.

    Example:
        >>> import torch
        >>> from ldlcam import plot_regions
        >>> images, heatmaps = torch.rand(2, 1, 40, 40), torch.rand(2, 5, 5)
        >>> boxes = torch.tensor([[8.0, 8.0, 24.0, 32.0]]).expand(2, 4)
        >>> figure = plot_regions(images, {"hand": heatmaps}, {"hand": boxes})
        >>> len(figure.axes)
        6

    References:
        Chen et al., arXiv 2006.00202, Fig. 3.
    """
    check_tensor("images", images, "N C H W", "floating")
    if images.shape[0] == 0:
        raise ValueError("images: expected at least one, got none")
    if set(heatmaps) != set(boxes):
        raise ValueError(f"boxes: expected the names {list(heatmaps)}, got {list(boxes)}")
    seen = seen or {}
    unknown = set(seen) - set(heatmaps)
    if unknown:
        raise ValueError(f"seen: expected names among {list(heatmaps)}, got {sorted(unknown)}")
    columns: list[_Column] = [("image", list(images), None)]
    for name, maps in heatmaps.items():
        check_tensor("boxes", boxes[name], "N 4", "floating", N=images.shape[0])
        shown = seen.get(name, images)
        count, _, height, width = images.shape
        check_tensor("seen", shown, "N C H W", "floating", N=count, H=height, W=width)
        if name in seen:
            columns.append((f"{name}\nseen", list(shown), None))
        columns.append((f"{name}\nheat map", list(overlay_heatmaps(shown, maps)), boxes[name]))
        columns.append((f"{name}\ncrop", _crops(images, boxes[name]), None))
    return _grid(columns, size)


def plot_threshold_sweep(sweeps: Mapping[str, ThresholdSweepResult]) -> Figure:
    """Mean IoU and AP50 over the threshold, a line for each region; dots mark the best mean IoU.

    Args:
        sweeps: What `threshold_sweep` gave, by the name of the region.

    Returns:
        The figure.

    Raises:
        TypeError: If the sweeps are not given by names.
        ValueError: If there is no sweep.

    Example:
        >>> import torch
        >>> from ldlcam import plot_threshold_sweep, threshold_sweep
        >>> targets = torch.tensor([[8.0, 8.0, 24.0, 32.0]])
        >>> sweep = threshold_sweep(torch.rand(1, 5, 5), targets, [0.2, 0.4, 0.6], (40, 40))
        >>> [axes.get_ylabel() for axes in plot_threshold_sweep({"hand": sweep}).axes]
        ['mean IoU', 'AP50']

    References:
        Chen et al., arXiv 2006.00202, Table I and Fig. 5a, over fractions of the maximum.
    """
    from matplotlib.figure import Figure

    check_mapping("sweeps", sweeps)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    both = figure.subplots(1, 2, sharex=True, sharey=True)
    for name, sweep in sweeps.items():
        parts = (sweep.thresholds, sweep.mean_iou, sweep.ap50)
        thresholds, overlap, shares = (part.detach().cpu() for part in parts)
        best = int(overlap.argmax())
        for axes, values in zip(both, (overlap, shares), strict=True):
            (line,) = axes.plot(thresholds, values, label=name)
            axes.plot(thresholds[best], values[best], "o", color=line.get_color())
    for axes, label in zip(both, ("mean IoU", "AP50"), strict=True):
        axes.set(xlabel="threshold, fraction of the maximum", ylabel=label, ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.yaxis.set_tick_params(labelleft=True)
    both[0].legend()
    return figure


# A title, its pictures (C, H, W), and boxes (N, 4) to draw into them.
_Column = tuple[str, list[Tensor], Tensor | None]


def _crops(images: Tensor, boxes: Tensor) -> list[Tensor]:
    """Each image's crop, (C, h, w), in its own proportions, with the image's longer side."""
    shape = (images.shape[2], images.shape[3])
    crops = []
    for image, box in zip(images, fill_boxes(boxes, shape), strict=True):
        width, height = (box[2:] - box[:2]).tolist()
        scale = max(shape) / max(width, height)
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        crops.append(crop_and_resize(image[None], box[None], size)[0])
    return crops


def _grid(columns: list[_Column], side: float) -> Figure:
    """Columns of pictures under their titles, a row for each image."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows = len(columns[0][1])
    height, width = columns[0][1][0].shape[1:]
    longer = max(height, width)
    figure = Figure(
        figsize=(side * width / longer * len(columns), side * height / longer * rows + 0.3),
        layout="constrained",
    )
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for (title, pictures, boxes), column in zip(columns, grid.T, strict=True):
        column[0].set_title(title, fontsize=8)
        for i, (picture, axes) in enumerate(zip(pictures, column, strict=True)):
            pixels = picture.detach().float().clamp(0, 1).movedim(0, 2).cpu().numpy()
            # Pixel coordinates from corner to corner, as boxes have them.
            extent = (0, pixels.shape[1], pixels.shape[0], 0)
            axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels,
                        cmap="gray", vmin=0, vmax=1, extent=extent)  # fmt: skip
            axes.set_aspect("equal", adjustable="datalim")  # so that titles stay in one line
            axes.set_axis_off()
            if boxes is not None:
                x1, y1, x2, y2 = boxes[i].tolist()
                axes.add_patch(
                    Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="white", lw=1)
                )
    return figure
