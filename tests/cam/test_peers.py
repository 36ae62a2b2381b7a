"""Other libraries, where they compute the same thing, give the same result."""

from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ldlcam.cam import (
    CAMHead,
    box_iou,
    class_activation_map,
    crop_and_resize,
    mask_boxes,
    normalize_heatmaps,
)
from tests.cam.maps import seeds

CLASS = 3

# Their own uses of what is deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def peer(name: str) -> ModuleType:
    module: ModuleType = pytest.importorskip(name, reason=f"{name} is not installed")
    return module


@pytest.fixture
def network() -> nn.Sequential:
    """Features, global average pooling and a linear classifier: what all of them can explain."""
    layers = OrderedDict(
        features=nn.Conv2d(3, 12, 3, stride=2),
        act=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        fc=nn.Linear(12, 5),
    )
    return nn.Sequential(layers).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 3, 21, 27)


def expected_maps(network: nn.Sequential, images: Tensor) -> Tensor:
    features = network.act(network.features(images))
    classes = torch.full((len(images),), CLASS)
    return class_activation_map(features, network.fc.weight, classes).detach()


def test_torchcam(network: nn.Sequential, images: Tensor) -> None:
    methods = peer("torchcam.methods")
    with methods.CAM(network, "act", "fc") as extractor:
        network(images)
        (maps,) = extractor(CLASS, normalized=False)
    torch.testing.assert_close(maps, expected_maps(network, images))


def test_captum(network: nn.Sequential, images: Tensor) -> None:
    attribution = peer("captum.attr")
    maps = attribution.LayerGradCam(network, network.act).attribute(images, target=CLASS)
    expected = expected_maps(network, images)
    # The gradient of a mean is the weight over the number of cells.
    torch.testing.assert_close(maps[:, 0] * expected[0].numel(), expected)


def test_monai(network: nn.Sequential, images: Tensor) -> None:
    visualize = peer("monai.visualize")
    explain = visualize.CAM(network, target_layers="act", fc_layers="fc")
    maps = explain.compute_map(images, class_idx=torch.full((len(images),), CLASS))
    # Its maps include the classifier's bias.
    expected = expected_maps(network, images) + network.fc.bias[CLASS]
    torch.testing.assert_close(maps[:, 0].detach(), expected.detach())


def test_grad_cam(network: nn.Sequential, images: Tensor) -> None:
    grad_cam = peer("pytorch_grad_cam")
    targets = peer("pytorch_grad_cam.utils.model_targets")
    expected = normalize_heatmaps(expected_maps(network, images).clamp(min=0))
    with grad_cam.GradCAM(network, [network.act]) as explain:
        activations = explain.activations_and_grads
        activations(images)
        scores = [targets.ClassifierOutputTarget(CLASS)] * len(images)
        maps = explain(images, scores)
    # It clamps, enlarges to the image and scales each map; at its own size ours is the same.
    assert maps.shape == (4, 21, 27)
    cv2 = peer("cv2")
    for found, heatmap in zip(maps, expected, strict=True):
        large = cv2.resize(heatmap.numpy(), (27, 21))
        np.testing.assert_allclose(found / found.max(), large / large.max(), atol=1e-4)


def test_the_weights_of_a_classifier_are_shared(network: nn.Sequential, images: Tensor) -> None:
    """torchcam keeps those of its construction; here later weights count."""
    head = CAMHead.from_classifier(network.fc)
    with torch.no_grad():
        network.fc.weight.mul_(-1)
    features = network.act(network.features(images))
    classes = torch.full((len(images),), CLASS)
    torch.testing.assert_close(
        head.heatmaps(features, classes).detach(), expected_maps(network, images)
    )


def random_masks(seed: int, density: float) -> np.ndarray:
    return np.random.default_rng(seed).random((3, 17, 23)) < density


def half_open(rows: slice, columns: slice) -> list[int]:
    return [columns.start, rows.start, columns.stop, rows.stop]


@given(seeds, st.floats(0.05, 0.9))
def test_components_of_skimage(seed: int, density: float) -> None:
    measure = peer("skimage.measure")
    masks = random_masks(seed, density)
    for mask, box, valid in zip(masks, *mask_boxes(torch.from_numpy(masks)), strict=True):
        regions = measure.regionprops(measure.label(mask, connectivity=2))
        areas = [region.num_pixels for region in regions]
        assert bool(valid) == bool(areas)
        if areas:
            rows, columns = regions[int(np.argmax(areas))].slice
            assert box.tolist() == half_open(rows, columns)


@given(seeds, st.floats(0.05, 0.9))
def test_components_of_opencv(seed: int, density: float) -> None:
    cv2 = peer("cv2")
    masks = random_masks(seed, density)
    for mask, box in zip(masks, mask_boxes(torch.from_numpy(masks)).boxes, strict=True):
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), None, None, 8)
        boxes = [
            (area, [x, y, x + width, y + height])
            for x, y, width, height, area in stats[1:].tolist()
        ]
        if count > 1:
            most = max(area for area, _ in boxes)
            assert box.tolist() in [found for area, found in boxes if area == most]


@given(seeds)
def test_iou_of_torchvision(seed: int) -> None:
    ops = peer("torchvision.ops")
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(2, 20, 2, 2, generator=generator, dtype=torch.float64)
    a, b = torch.cat((corners.amin(2), corners.amax(2)), 2)
    torch.testing.assert_close(box_iou(a, b), ops.box_iou(a, b).diagonal(), rtol=1e-12, atol=0)


def test_crops_of_roi_align() -> None:
    ops = peer("torchvision.ops")
    images = torch.rand(2, 3, 40, 50, dtype=torch.float64)
    boxes = torch.tensor([[4.25, 3.5, 40.75, 30.0], [10.0, 8.0, 20.0, 21.0]], dtype=torch.float64)
    found = crop_and_resize(images, boxes, (24, 31), antialias=False)
    expected = ops.roi_align(images, list(boxes.split(1)), (24, 31), 1.0, 1, aligned=True)
    torch.testing.assert_close(found, expected)


def test_mean_absolute_error_of_torchmetrics() -> None:
    theirs = peer("torchmetrics")
    ours = peer("ldlcam.metrics")
    predictions, targets = torch.rand(2, 30)
    mine, other = ours.MeanAbsoluteError(), theirs.MeanAbsoluteError()
    for metric in (mine, other):
        metric.update(predictions, targets)
    torch.testing.assert_close(mine.compute(), other.compute())
