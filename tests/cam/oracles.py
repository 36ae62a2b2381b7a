"""Slow, independent references, written with numpy and scipy."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor


def dense_mask(heatmap: Tensor, threshold: float, size: tuple[int, int]) -> np.ndarray:
    """Upsample one (h, w) map and threshold it at a fraction of the map's own maximum."""
    big = F.interpolate(heatmap[None, None], size=size, mode="bilinear", align_corners=False)
    return (big[0, 0] >= threshold * heatmap.max()).numpy()


def dense_peak(heatmap: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the upsampled map's first highest pixel."""
    big = F.interpolate(heatmap[None, None], size=size, mode="bilinear", align_corners=False)
    row, column = np.unravel_index(int(big.argmax()), size)
    return int(row), int(column)


def component_box(
    mask: np.ndarray, component: str = "largest", peak: tuple[int, int] = (0, 0)
) -> tuple[tuple[int, int, int, int], bool]:
    """Half-open box of one 8-connected component, and whether there is any."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if count == 0 or (component == "peak" and labels[peak] == 0):
        return (0, 0, 0, 0), False
    areas = np.bincount(labels.ravel())[1:]
    winner = labels[peak] if component == "peak" else 1 + int(np.argmax(areas))
    rows, columns = ndimage.find_objects(labels)[winner - 1]
    return (columns.start, rows.start, columns.stop, rows.stop), True


def dense_boxes(
    heatmaps: Tensor, threshold: float, size: tuple[int, int], component: str = "largest"
) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) and validity (N,) by upsampling, thresholding and labelling pixels."""
    boxes, valid = [], []
    for heatmap in heatmaps:
        mask = dense_mask(heatmap, threshold, size)
        box, found = component_box(mask, component, dense_peak(heatmap, size))
        boxes.append(box)
        valid.append(found)
    return torch.tensor(boxes).float().view(-1, 4), torch.tensor(valid, dtype=torch.bool)


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two half-open boxes."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union
