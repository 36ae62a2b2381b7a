"""From heat maps to boxes: one rule for the stages and for prediction."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from ldlcam import (
    Regions,
    clip_boxes,
    erase_boxes,
    fill_boxes,
    levelset_boxes,
    normalize_heatmaps,
    pad_boxes,
    scale_boxes,
)
from torch import Tensor

from boneage.config import Localization, Localizer
from boneage.data.batches import to_float
from boneage.networks.localizer import Attention, LocalizerNetwork

_BATCH = 64


def attend(network: LocalizerNetwork, images: np.ndarray, sex: Tensor) -> Attention:
    """Heat maps and most likely ages of many small images (N, S, S) uint8, on the network's device.

    The sex is (N,): +1 male, -1 female, 0 unknown. The answer lies on the CPU.
    """
    device = network.head.weight.device
    parts = []
    for i in range(0, len(images), _BATCH):
        batch = torch.from_numpy(np.array(images[i : i + _BATCH]))[:, None].to(device)
        parts.append(network.attend(to_float(batch), sex[i : i + _BATCH].to(device)))
    return Attention(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def find_regions(
    heatmaps: Tensor, shapes: Tensor, config: Localizer, plan: Localization, threshold: float
) -> Regions:
    """Boxes of the hot regions, in pixels of the original images.

    Args:
        heatmaps: Shape (N, h, w), as the network gives them; clamped at 0 here.
        shapes: Heights and widths of the original images, (N, 2).
        config: The localizer's size and margin.
        plan: Which component of the region counts.
        threshold: Fraction of each map's maximum.

    Returns:
        Boxes (N, 4), and whether each map had a region; where not, the box is the whole image.
    """
    frame = (config.size, config.size)
    found = levelset_boxes(normalize_heatmaps(heatmaps), threshold, frame, component=plan.component)
    boxes = clip_boxes(pad_boxes(scale_boxes(found.boxes, frame, shapes), config.margin), shapes)
    # A box of zero area holds no pixel to look at: it counts as not found.
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    valid = found.valid & (area > 0)
    return Regions(fill_boxes(boxes * valid[:, None], shapes), valid)


def exclude_regions(heatmaps: Tensor, found: Sequence[Regions], shapes: Tensor) -> Tensor:
    """Heat maps (N, h, w) that are 0 in the cells whose centres lie in regions found before.

    Erasing a region hides what it showed but leaves a patch, and where that lies and how large it
    is can tell the age too. The next region is to be another place, so the map does not count
    there.
    """
    frame = (heatmaps.shape[1], heatmaps.shape[2])
    for regions in found:
        boxes = _boxes_to_erase(regions, shapes, frame).to(heatmaps)
        heatmaps = erase_boxes(heatmaps[:, None], boxes, fill=0.0)[:, 0]
    return heatmaps


def erase_regions(
    images: np.ndarray, found: Sequence[Regions], shapes: Tensor, ids: Sequence[str]
) -> np.ndarray:
    """Small whole images (N, S, S) uint8 with some regions of each filled by one random grey.

    The grey depends on the image's id alone. Where no region was found nothing is erased.
    """
    erased = np.empty_like(images)
    seeds = torch.tensor([zlib.crc32(id.encode(errors="surrogateescape")) for id in ids])
    for i in range(0, len(images), _BATCH):
        part = slice(i, i + _BATCH)
        pixels = torch.from_numpy(np.array(images[part]))[:, None]
        own = [Regions(*(column[part] for column in regions)) for regions in found]
        erased[part] = erase_found(pixels, own, shapes[part], seeds[part])[:, 0].numpy()
    return erased


def erase_found(pixels: Tensor, found: Sequence[Regions], shapes: Tensor, seeds: Tensor) -> Tensor:
    """Small whole images (N, 1, S, S) uint8 with regions filled by the grey of each one's seed."""
    filled = to_float(pixels)
    for regions in found:
        boxes = _boxes_to_erase(regions, shapes, (pixels.shape[2], pixels.shape[3]))
        filled = erase_boxes(filled, boxes, fill="random", seeds=seeds)
    return (filled * 255).round().to(torch.uint8)


def _boxes_to_erase(regions: Regions, shapes: Tensor, frame: tuple[int, int]) -> Tensor:
    """Boxes in pixels of a frame; without area, which erases nothing, where none was found."""
    return scale_boxes(regions.boxes, shapes, frame) * regions.valid[:, None]
