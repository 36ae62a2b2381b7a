import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from ldlcam.cam import crop_and_resize, crop_to_image, match_aspect
from tests.cam.maps import seeds

PATHS = ("taps", "products")


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to the same crop: the usual one on the CPU, and the one that compiles."""
    if request.param == "products":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    return str(request.param)


def whole(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    box = torch.tensor([[0.0, 0.0, width, height]], dtype=torch.float64)
    return box.expand(len(images), 4)


def interpolated(images: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    """PyTorch's own resizing, of the transposed images where the result is one column wide.

    There its antialiasing repeats the first row (seen in 2.15).
    """
    if size[1] > 1:
        return F.interpolate(images, size, mode="bilinear", antialias=antialias)
    upright = F.interpolate(images.mT, size[::-1], mode="bilinear", antialias=antialias)
    return upright.mT


def slow_weights(start: float, end: float, pixels: int, count: int, antialias: bool) -> np.ndarray:
    """One axis' weights, sample by sample."""
    weights = np.zeros((count, pixels))
    step = (end - start) / count
    reach = max(step, 1.0) if antialias else 1.0
    for sample in range(count):
        center = min(max(start + (sample + 0.5) * step, 0.5), pixels - 0.5)
        for pixel in range(pixels):
            weights[sample, pixel] = max(0.0, 1 - abs(pixel + 0.5 - center) / reach)
        weights[sample] /= weights[sample].sum()
    return weights


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 24),
    st.integers(1, 24),
    st.booleans(),
    seeds,
)
def test_whole_images_are_interpolated(
    height: int, width: int, rows: int, columns: int, antialias: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)
    crops = crop_and_resize(images, whole(images), (rows, columns), antialias=antialias)
    torch.testing.assert_close(
        crops, interpolated(images, (rows, columns), antialias), atol=1e-12, rtol=0
    )


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30), st.integers(1, 30))
def test_whole_pixels_are_sliced(x: int, y: int, width: int, height: int) -> None:
    images = torch.rand(1, 2, 60, 60)
    box = torch.tensor([[x, y, x + width, y + height]]).float()
    crops = crop_and_resize(images, box, (height, width))
    torch.testing.assert_close(crops, images[..., y : y + height, x : x + width], atol=2e-5, rtol=0)


@pytest.mark.parametrize("antialias", [True, False])
def test_whole_pixels_of_large_images_are_exact(path: str, antialias: bool) -> None:
    images = torch.rand(1, 1, 1500, 2000) * 4095
    box = torch.tensor([[1700.0, 1200.0, 1956.0, 1456.0]])
    crops = crop_and_resize(images, box, (256, 256), antialias=antialias)
    assert torch.equal(crops, images[..., 1200:1456, 1700:1956])


@settings(max_examples=60)
@given(
    st.lists(st.floats(-15, 35), min_size=4, max_size=4),
    st.integers(1, 12),
    st.integers(1, 12),
    st.booleans(),
)
def test_any_box(ends: list[float], rows: int, columns: int, antialias: bool) -> None:
    """Against weights made one by one; boxes inside, across and beyond the image."""
    x1, x2 = sorted(ends[:2])
    y1, y2 = sorted(ends[2:])
    x2, y2 = x2 + 0.01, y2 + 0.01
    images = torch.rand(1, 2, 17, 21, dtype=torch.float64)
    down = slow_weights(y1, y2, 17, rows, antialias)
    across = slow_weights(x1, x2, 21, columns, antialias)
    expected = np.einsum("hi,ncij,wj->nchw", down, images.numpy(), across)
    box = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float64)
    crops = crop_and_resize(images, box, (rows, columns), antialias=antialias)
    np.testing.assert_allclose(crops.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("antialias", [True, False])
def test_both_paths_agree(antialias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(4, 3, 90, 70)
    boxes = torch.tensor(
        [[3.2, 4.1, 60.7, 80.9], [-20, -9, 95, 99], [30, 30, 33, 33], [0, 0, 0, 0]]
    )
    tapped = crop_and_resize(images, boxes, (20, 30), antialias=antialias)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    multiplied = crop_and_resize(images, boxes, (20, 30), antialias=antialias)
    torch.testing.assert_close(tapped, multiplied, atol=1e-5, rtol=0)


def test_antialiasing_keeps_thin_lines(path: str) -> None:
    """A line one pixel wide in every eight leaves an even grey, whatever its phase."""
    images = torch.zeros(1, 1, 64, 256)
    images[..., ::8] = 1
    box = torch.tensor([[16.0, 0.0, 240.0, 64.0]])
    smooth = crop_and_resize(images, box, (8, 14))
    assert smooth.max() - smooth.min() < 0.01
    torch.testing.assert_close(smooth.mean(), torch.tensor(1 / 8), atol=1e-3, rtol=0)
    aliased = crop_and_resize(images, box + 0.3, (8, 14), antialias=False)
    assert abs(float(aliased.mean()) - 1 / 8) > 0.05


def test_constant_images_stay_constant(path: str) -> None:
    images = torch.full((3, 1, 9, 13), 0.7)
    boxes = torch.tensor([[1.3, 2.2, 8.8, 7.7], [-50, -50, -40, -40], [100, 2, 200, 3]])
    crops = crop_and_resize(images, boxes, (6, 5))
    torch.testing.assert_close(crops, torch.full((3, 1, 6, 5), 0.7))


def test_improper_boxes_give_the_whole_image(path: str) -> None:
    images = torch.rand(5, 2, 12, 10)
    boxes = torch.tensor(
        [
            [0.0, 0.0, 0.0, 0.0],
            [5.0, 5.0, 5.0, 9.0],
            [6.0, 5.0, 2.0, 9.0],
            [0.0, torch.nan, 4.0, 4.0],
            [0.0, 0.0, torch.inf, 4.0],
        ]
    ).requires_grad_()
    crops = crop_and_resize(images, boxes, (6, 6))
    expected = F.interpolate(images, (6, 6), mode="bilinear", antialias=True)
    torch.testing.assert_close(crops, expected)
    crops.sum().backward()
    assert boxes.grad is not None
    assert (boxes.grad == 0).all()


def test_one_broken_image_leaves_the_others_alone(path: str) -> None:
    images = torch.rand(3, 1, 16, 16)
    boxes = torch.tensor([[1.0, 2.0, 9.0, 10.0]]).expand(3, 4)
    expected = crop_and_resize(images, boxes, (4, 4))
    images[1] = torch.nan
    crops = crop_and_resize(images, boxes, (4, 4))
    assert torch.equal(crops[[0, 2]], expected[[0, 2]])
    assert crops[1].isnan().all()


def test_lists_of_different_sizes(path: str) -> None:
    images = [torch.rand(2, 30, 40), torch.rand(2, 17, 9), torch.rand(2, 1, 50)]
    boxes = torch.tensor([[2.0, 3.0, 20.0, 25.0], [0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 44.0, 1.0]])
    crops = crop_and_resize(images, boxes, (8, 6), keep_aspect=True)
    assert crops.shape == (3, 2, 8, 6)
    for index, image in enumerate(images):
        alone = crop_and_resize(image[None], boxes[index : index + 1], (8, 6), keep_aspect=True)
        assert torch.equal(crops[index], alone[0])


def test_keep_aspect_enlarges_the_box(path: str) -> None:
    images = torch.rand(2, 1, 40, 40)
    boxes = torch.tensor([[10.0, 5.0, 20.0, 25.0], [3.0, 3.0, 33.0, 9.0]])
    crops = crop_and_resize(images, boxes, (12, 16), keep_aspect=True)
    expected = crop_and_resize(images, match_aspect(boxes, (12, 16)), (12, 16))
    assert torch.equal(crops, expected)


@pytest.mark.parametrize("keep_aspect", [True, False])
def test_points_come_back_to_where_they_were(path: str, keep_aspect: bool) -> None:
    """A bright spot found in the crop lies where it is in the image."""
    images = torch.zeros(1, 1, 200, 150)
    images[0, 0, 120:124, 60:64] = 1
    boxes = torch.tensor([[31.0, 77.0, 121.0, 169.0]])
    crops = crop_and_resize(images, boxes, (45, 60), keep_aspect=keep_aspect)[0, 0]
    y = (crops.sum(1) @ (torch.arange(45) + 0.5)) / crops.sum()
    x = (crops.sum(0) @ (torch.arange(60) + 0.5)) / crops.sum()
    point = torch.stack((x, y)).unsqueeze(0)
    found = crop_to_image(point, boxes, (45, 60), keep_aspect=keep_aspect)
    torch.testing.assert_close(found, torch.tensor([[62.0, 122.0]]), atol=0.1, rtol=0)


@pytest.mark.parametrize("size", [(3, 2), (9, 11)])
@pytest.mark.parametrize("antialias", [True, False])
def test_gradients(path: str, size: tuple[int, int], antialias: bool) -> None:
    images = torch.rand(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[1.13, 0.71, 5.32, 4.93], [-1.31, 2.27, 3.36, 8.14]])
    boxes = boxes.double().requires_grad_()

    def crops(images: Tensor, boxes: Tensor) -> Tensor:
        return crop_and_resize(images, boxes, size, antialias=antialias, keep_aspect=not antialias)

    assert gradcheck(crops, (images, boxes))


def test_gradients_of_lists(path: str) -> None:
    images = [torch.rand(1, 6, 7), torch.rand(1, 4, 9)]
    images = [image.double().requires_grad_() for image in images]
    boxes = torch.tensor([[1.13, 0.71, 5.32, 3.93], [-1.31, 1.27, 3.36, 5.14]])

    def crops(boxes: Tensor, *images: Tensor) -> Tensor:
        return crop_and_resize(images, boxes, (3, 2))

    assert gradcheck(crops, (boxes.double().requires_grad_(), *images))


@pytest.mark.parametrize("listed", [False, True])
def test_compiles(listed: bool) -> None:
    images = torch.rand(2, 3, 20, 30)
    if listed:
        images = [images[0], images[1, :, 4:, 7:]]
    boxes = torch.tensor([[2.0, 3.0, 20.0, 15.0], [0.0, 0.0, 0.0, 0.0]])

    def path(images: Tensor, boxes: Tensor) -> Tensor:
        return crop_and_resize(images, boxes, (8, 6), keep_aspect=True)

    compiled = torch.compile(path, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, boxes), path(images, boxes))


def test_autocast_changes_nothing(path: str) -> None:
    images = torch.rand(2, 3, 40, 50)
    boxes = torch.tensor([[2.5, 3.0, 30.0, 35.0]]).expand(2, 4)
    plain = crop_and_resize(images, boxes, (8, 9))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = crop_and_resize(images, boxes, (8, 9))
    assert torch.equal(mixed, plain)


@pytest.mark.parametrize("far", [1e3, 1e7, 1e12, 1e19])
def test_boxes_far_larger_than_the_image(path: str, far: float) -> None:
    images = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    boxes = torch.tensor([[-far, -far, far, far], [2.0, 3.0, 10.0, 9.0]], dtype=torch.float64)
    crops = crop_and_resize(images, boxes, (3, 3))
    # Its middle lies at the image's corner; every sample reads the whole image.
    reach = 2 * far / 3
    centers = torch.tensor([0.5, 0.5, 15.5], dtype=torch.float64)
    places = torch.arange(16) + 0.5
    weights = 1 - (places - centers[:, None]).abs() / reach
    weights = weights / weights.sum(1, keepdim=True)
    torch.testing.assert_close(crops[0, 0], weights @ images[0, 0] @ weights.T)
    alone = crop_and_resize(images[1:], boxes[1:], (3, 3))
    torch.testing.assert_close(crops[1:], alone)


@pytest.mark.parametrize("size", [(4, 4), (2, 9), (9, 2)])
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_boxes_next_to_infinity(path: str, size: tuple[int, int], keep_aspect: bool) -> None:
    far = 3e38
    boxes = torch.tensor(
        [[-far, -far, far, far], [0, 0, far, far], [0, 0, far, 1], [-far, -far, -far / 2, -far / 2]]
    )
    images = torch.rand(4, 1, 8, 9)
    crops = crop_and_resize(images, boxes, size, keep_aspect=keep_aspect)
    assert crops.isfinite().all()
    whole = torch.zeros(1, 4)  # whose sides have no end stands for the whole image
    expected = crop_and_resize(images[:1], whole, size, keep_aspect=keep_aspect)
    torch.testing.assert_close(crops[:1], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_device(device: torch.device, dtype: torch.dtype) -> None:
    images = torch.rand(2, 3, 40, 50, device=device).to(dtype)
    boxes = torch.tensor([[2.5, 3.0, 30.0, 35.0]], device=device).expand(2, 4)
    crops = crop_and_resize(images, boxes, (8, 9))
    assert crops.shape == (2, 3, 8, 9)
    assert crops.dtype == dtype
    assert crops.device.type == device.type
    assert crops.is_contiguous()
    if device.type != "meta":
        expected = crop_and_resize(images.cpu().float(), boxes.cpu(), (8, 9))
        torch.testing.assert_close(crops.cpu().float(), expected, atol=0.01, rtol=0)
    assert crop_and_resize(list(images), boxes, (8, 9)).shape == (2, 3, 8, 9)


def test_no_images(path: str) -> None:
    assert crop_and_resize(torch.zeros(0, 3, 8, 9), torch.zeros(0, 4), (4, 5)).shape == (0, 3, 4, 5)


def test_errors() -> None:
    images, boxes = torch.rand(2, 3, 8, 8), torch.rand(2, 4)
    with pytest.raises(ValueError, match="boxes: expected length 2 as images has, got 3"):
        crop_and_resize(images, torch.rand(3, 4), (4, 4))
    with pytest.raises(ValueError, match="images: expected 2, one per box, got 1"):
        crop_and_resize([images[0]], boxes, (4, 4))
    with pytest.raises(ValueError, match="images: expected at least one in a list, got none"):
        crop_and_resize([], boxes[:0], (4, 4))
    with pytest.raises(TypeError, match="images: expected a tensor or a sequence of tensors, got"):
        crop_and_resize(None, boxes, (4, 4))  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"images\[1\]: expected shape \(C, H, W\) with C = 3, got"
    ):
        crop_and_resize([images[0], images[0, :1]], boxes, (4, 4))
    with pytest.raises(
        ValueError, match=r"images\[1\]: expected shape \(C, H, W\) with C = 3, got"
    ):
        crop_and_resize([images[0], images[0, 0]], boxes, (4, 4))
    with pytest.raises(TypeError, match=r"images\[0\]: expected a tensor"):
        crop_and_resize([images[0].tolist()], boxes[:1], (4, 4))
    with pytest.raises(ValueError, match=r"images\[0\]: expected shape \(C, H, W\), got \(\)"):
        crop_and_resize([images[0, 0, 0, 0]], boxes[:1], (4, 4))
    with pytest.raises(TypeError, match="images: expected a tensor of floating dtype"):
        crop_and_resize((images * 255).to(torch.uint8), boxes, (4, 4))
    with pytest.raises(
        ValueError, match=r"size: expected \(height, width\), whole numbers of at least 1"
    ):
        crop_and_resize(images, boxes, (4, 0))


def test_the_default_dtype_is_not_that_of_the_places(path: str, half_by_default: None) -> None:
    ramp = torch.arange(600, dtype=torch.float32).expand(1, 1, 4, 600).contiguous()
    box = torch.tensor([[300.0, 0.0, 308.0, 4.0]], dtype=torch.float32)
    crops = crop_and_resize(ramp, box, (1, 8))
    torch.testing.assert_close(crops.flatten(), torch.arange(300, 308, dtype=torch.float32))


def test_the_default_device_is_not_that_of_the_places(path: str) -> None:
    images, boxes = torch.rand(2, 3, 20, 30), torch.tensor([[2.0, 3.0, 18.0, 15.0]] * 2)
    expected = crop_and_resize(images, boxes, (5, 6))
    with torch.device("meta"):
        torch.testing.assert_close(crop_and_resize(images, boxes, (5, 6)), expected)
