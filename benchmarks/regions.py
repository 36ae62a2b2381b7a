"""Boxes of heat maps' regions: levelset_boxes beside upsampling, thresholding and labelling.

Run: python benchmarks/regions.py
"""

import numpy as np
import torch
from _measure import compare, show, write
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from ldlcam import box_iou, levelset_boxes, mask_boxes, threshold_mask

COUNT = 64
THRESHOLD = 0.3
# The larger one is slow by hand: few rounds.
SIZES = {(560, 560): 9, (2000, 1500): 3}
OURS = "levelset_boxes, largest"


def by_hand(heatmaps: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (N, 4) of the largest components, as one writes it with scipy."""
    levels = THRESHOLD * heatmaps.amax((1, 2), keepdim=True)
    large = F.interpolate(heatmaps[:, None], size=size, mode="bilinear")[:, 0]
    boxes = []
    for mask in (large >= levels).numpy():
        labels, _ = ndimage.label(mask, np.ones((3, 3)))
        areas = np.bincount(labels.ravel())
        areas[0] = 0
        rows, columns = ndimage.find_objects(labels)[areas.argmax() - 1]
        boxes.append((columns.start, rows.start, columns.stop, rows.stop))
    return torch.tensor(boxes, dtype=torch.float32)


def smooth_maps() -> Tensor:
    """Heat maps (N, 18, 18) with a few hills each, some of them apart."""
    generator = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(generator.standard_normal((COUNT, 18, 18)), (0, 1.5, 1.5))
    return torch.from_numpy(noise).float()


def main() -> None:
    heatmaps = smooth_maps()
    comparisons = []
    for size, rounds in SIZES.items():
        ways = {
            OURS: lambda size=size: levelset_boxes(heatmaps, THRESHOLD, size),
            "levelset_boxes, peak": lambda size=size: levelset_boxes(
                heatmaps, THRESHOLD, size, component="peak"
            ),
            "levelset_boxes, largest, snap": lambda size=size: levelset_boxes(
                heatmaps, THRESHOLD, size, snap=True
            ),
            "threshold_mask + mask_boxes": lambda size=size: mask_boxes(
                threshold_mask(heatmaps, THRESHOLD, size)
            ),
            "F.interpolate + scipy.ndimage.label": lambda size=size: by_hand(heatmaps, size),
        }
        dense = by_hand(heatmaps, size)
        snapped = levelset_boxes(heatmaps, THRESHOLD, size, snap=True).boxes
        exact = levelset_boxes(heatmaps, THRESHOLD, size).boxes
        agreement = {
            "equal_boxes_snap": (snapped == dense).all(1).double().mean().item(),
            "mean_iou_continuous": box_iou(exact, dense).double().mean().item(),
        }
        result = compare(OURS, ways, rounds=rounds, warmup=1)
        show(f"{COUNT} maps of 18 x 18 to boxes at {size[0]} x {size[1]}", result)
        print(f"  agreement with the pixels: {agreement}")
        comparisons.append(
            {"maps": COUNT, "map_size": [18, 18], "size": list(size), **agreement, **result}
        )
    write("regions", comparisons)


if __name__ == "__main__":
    main()
