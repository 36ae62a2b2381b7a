"""From images to crops in one module: eager, compiled, exported, trained through, on any device."""

import pytest
import torch
from torch import Tensor, nn

from ldlcam.cam import (
    CAMHead,
    clip_boxes,
    crop_and_resize,
    fill_boxes,
    levelset_boxes,
    pad_boxes,
    trim_heatmaps,
)


class Finder(nn.Module):
    """Backbone, heat map of the likeliest class, its region's box, and the crop."""

    def __init__(self, component: str = "peak") -> None:
        super().__init__()
        self.component = component
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 8, 5, stride=4, padding=2), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU()),
        )
        self.head = CAMHead(8, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (N, 1, 73, 57) -> boxes (N, 4), validity (N,), crops (N, 1, 16, 16)."""
        heatmaps = trim_heatmaps(self.head.heatmaps(self.features(images)), 8)
        boxes, valid = levelset_boxes(heatmaps, 0.6, (73, 57), component=self.component)
        return boxes, valid, crop_and_resize(images, boxes, (16, 16))


@pytest.fixture(params=["peak", "largest"])
def finder(request: pytest.FixtureRequest) -> Finder:
    torch.manual_seed(3)
    return Finder(request.param).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 1, 73, 57)


def close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_regions_are_found(finder: Finder, images: Tensor) -> None:
    boxes, valid, crops = finder(images)
    assert valid.all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert crops.shape == (4, 1, 16, 16)


def test_compiles_as_one_graph(finder: Finder, images: Tensor) -> None:
    compiled = torch.compile(finder, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        close(compiled(images), finder(images))


def test_exports_for_any_number_of_images(finder: Finder, images: Tensor) -> None:
    count = torch.export.Dim("count", min=2, max=64)
    program = torch.export.export(finder, (images,), dynamic_shapes=({0: count},), strict=False)
    more = torch.rand(7, 1, 73, 57)
    with torch.no_grad():
        close(program.module()(more), finder(more))


class AnySize(Finder):
    """Looks at small versions of images of any size, and answers in pixels of the images."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (N, 1, H, W) -> boxes (N, 4), validity (N,), crops (N, 1, 16, 16)."""
        small = crop_and_resize(images, images.new_zeros(len(images), 4), (73, 57))
        heatmaps = trim_heatmaps(self.head.heatmaps(self.features(small)), 8)
        size = (images.shape[2], images.shape[3])
        boxes, valid = levelset_boxes(heatmaps, 0.6, size, component=self.component)
        boxes = clip_boxes(pad_boxes(boxes, 0.1), size)
        return boxes, valid, crop_and_resize(images, fill_boxes(boxes, size), (16, 16))


@pytest.mark.parametrize("component", ["peak", "largest"])
def test_exports_for_images_of_any_size(component: str) -> None:
    torch.manual_seed(3)
    finder = AnySize(component).eval()
    sides = {2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    images = torch.rand(2, 1, 90, 131)
    program = torch.export.export(finder, (images,), dynamic_shapes=(sides,), strict=False)
    for size in ((90, 131), (131, 90), (8, 300), (401, 33)):
        other = torch.rand(2, 1, *size)
        with torch.no_grad():
            close(program.module()(other), finder(other))


def test_what_the_crop_wants_reaches_the_backbone(finder: Finder, images: Tensor) -> None:
    """A loss on the crops alone trains what decides where to look."""
    *_, crops = finder(images)
    crops.square().mean().backward()
    gradient = finder.features[0].weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_device(device: torch.device, finder: Finder, images: Tensor) -> None:
    boxes, valid, crops = finder.to(device)(images.to(device))
    assert {one.device.type for one in (boxes, valid, crops)} == {device.type}
    assert crops.shape == (4, 1, 16, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(finder: Finder, images: Tensor, dtype: torch.dtype) -> None:
    """Where the maps are in half precision the boxes are near those of full precision."""
    with torch.no_grad():
        maps = finder.head.heatmaps(finder.features(images))
        exact = levelset_boxes(trim_heatmaps(maps, 8), 0.6, (73, 57), component=finder.component)
        coarse = levelset_boxes(
            trim_heatmaps(maps.to(dtype), 8), 0.6, (73, 57), component=finder.component
        )
    assert torch.equal(coarse.valid, exact.valid)
    assert (coarse.boxes.float() - exact.boxes).abs().median() < 1
