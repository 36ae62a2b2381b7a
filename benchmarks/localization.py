"""The whole path, features to boxes: ldlcam beside a CAM library and beside bare PyTorch.

Run: python benchmarks/localization.py
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from _measure import compare, show, write
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F
from torchcam.methods import CAM

from ldlcam import CAMHead, box_iou, levelset_boxes

COUNT, CHANNELS, CELLS, CLASSES = 64, 2048, 18, 240
SIZE = (560, 560)
THRESHOLD = 0.3
OURS = "ldlcam"

Boxes = list[tuple[int, int, int, int]]


class Classifier(nn.Sequential):
    """The end of a network, from its last features on: what libraries hook into."""

    def __init__(self, head: CAMHead) -> None:
        linear = nn.Linear(CHANNELS, CLASSES)
        linear.weight, linear.bias = head.weight, head.bias
        super().__init__()
        self.features = nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.fc = linear


def features_of_hills() -> Tensor:
    """Features (N, C, h, w), not negative, whose maps have a few hills each."""
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((COUNT, CHANNELS, CELLS, CELLS), dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, (0, 0, 1.5, 1.5))
    return torch.from_numpy(smooth).relu_()


def large_masks(heatmaps: Tensor) -> np.ndarray:
    """Which pixels are in, (N, H, W): enlarged, and at least a fraction of the map's maximum."""
    levels = THRESHOLD * heatmaps.amax((1, 2), keepdim=True)
    large = F.interpolate(heatmaps[:, None], size=SIZE, mode="bilinear")[:, 0]
    masks: np.ndarray = (large >= levels).numpy()
    return masks


def boxes_scipy(masks: np.ndarray) -> Boxes:
    boxes = []
    for mask in masks:
        labels, _ = ndimage.label(mask, np.ones((3, 3)))
        areas = np.bincount(labels.ravel())
        areas[0] = 0
        rows, columns = ndimage.find_objects(labels)[areas.argmax() - 1]
        boxes.append((columns.start, rows.start, columns.stop, rows.stop))
    return boxes


def boxes_components(masks: np.ndarray) -> Boxes:
    boxes = []
    for mask in masks.view(np.uint8):
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, None, None, 8)
        x, y, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
        boxes.append((x, y, x + width, y + height))
    return boxes


def boxes_contours(masks: np.ndarray) -> Boxes:
    """The fastest way by OpenCV; the area is that inside the outline, holes included."""
    boxes = []
    for mask in masks.view(np.uint8):
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        x, y, width, height = cv2.boundingRect(max(outlines, key=cv2.contourArea))
        boxes.append((x, y, x + width, y + height))
    return boxes


@torch.no_grad()
def main() -> None:
    features = features_of_hills()
    head = CAMHead(CHANNELS, CLASSES)
    classes = head(features).argmax(1)
    network = Classifier(head).eval()

    def ours(**options: object) -> Tensor:
        return levelset_boxes(head.heatmaps(features, classes), THRESHOLD, SIZE, **options).boxes

    def bare_maps() -> Tensor:
        weights = head.weight[classes].unsqueeze(1)
        return torch.bmm(weights, features.flatten(2)).view(COUNT, CELLS, CELLS)

    torchcam = CAM(network, "features", "fc")
    network(features)  # leaves the features in the hook; not timed
    picked = classes.tolist()

    def torchcam_maps() -> Tensor:
        maps: Tensor = torchcam(picked, normalized=False)[0]
        return maps

    hooked = Classifier(head).eval()  # torchcam hooks the other
    gradcam = GradCAM(hooked, [hooked.features])
    targets = [ClassifierOutputTarget(label) for label in picked]

    @torch.enable_grad()
    def gradcam_masks() -> np.ndarray:
        # It enlarges to the size of what it takes for an image: here, the features' own.
        maps = torch.from_numpy(gradcam(features.detach().requires_grad_(), targets))
        return large_masks(maps)

    ways: dict[str, Callable[[], object]] = {
        OURS: ours,
        "ldlcam, peak": lambda: ours(component="peak"),
        "ldlcam, the maps alone": lambda: head.heatmaps(features, classes),
        "reading the features once": lambda: features.sum(),
        "torchcam + scipy": lambda: boxes_scipy(large_masks(torchcam_maps())),
        "grad-cam + OpenCV contours": lambda: boxes_contours(gradcam_masks()),
        "bmm + scipy": lambda: boxes_scipy(large_masks(bare_maps())),
        "bmm + OpenCV components": lambda: boxes_components(large_masks(bare_maps())),
        "bmm + OpenCV contours": lambda: boxes_contours(large_masks(bare_maps())),
    }
    dense = torch.tensor(boxes_scipy(large_masks(bare_maps())), dtype=torch.float32)
    agreement = {
        "map_difference_torchcam": (torchcam_maps() - bare_maps()).abs().max().item(),
        "equal_boxes_snap": (ours(snap=True) == dense).all(1).double().mean().item(),
        "mean_iou_continuous": box_iou(ours(), dense).double().mean().item(),
    }
    result = compare(OURS, ways, rounds=9)
    shape = f"{COUNT} x {CHANNELS} x {CELLS} x {CELLS}"
    show(f"Features {shape}, {CLASSES} classes, to boxes at {SIZE[0]} x {SIZE[1]}", result)
    print(f"  agreement: {agreement}")
    settings = {"features": list(features.shape), "classes": CLASSES, "size": list(SIZE)}
    write("localization", [settings | agreement | result])


if __name__ == "__main__":
    main()
