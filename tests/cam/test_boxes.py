import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from ldlcam.cam import (
    box_iou,
    clip_boxes,
    crop_to_image,
    fill_boxes,
    match_aspect,
    pad_boxes,
    scale_boxes,
)
from tests.cam.maps import seeds
from tests.cam.oracles import iou

BOX = torch.tensor([[10.0, 20.0, 30.0, 60.0]])


def random_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    starts = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 10
    extents = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 10 + 0.1
    return torch.cat((starts, starts + extents), 1)


def test_pad() -> None:
    assert pad_boxes(BOX, 0.25).tolist() == [[5, 10, 35, 70]]
    assert pad_boxes(BOX, -0.25).tolist() == [[15, 30, 25, 50]]
    assert torch.equal(pad_boxes(BOX, 0), BOX)


@pytest.mark.parametrize("margin", [-0.5, torch.inf, torch.nan])
def test_margins_that_leave_no_box_are_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=r"margin: expected a finite number above -0\.5, got"):
        pad_boxes(torch.tensor([[10.0, 20.0, 20.0, 40.0]]), margin)


def test_clip() -> None:
    boxes = torch.tensor([[-5.0, -6.0, 7.0, 8.0], [3.0, 4.0, 50.0, 60.0], [40.0, 1.0, 45.0, 2.0]])
    expected = [[0, 0, 7, 8], [3, 4, 20, 10], [20, 1, 20, 2]]
    assert clip_boxes(boxes, (10, 20)).tolist() == expected
    sizes = torch.tensor([[100, 200], [10, 20], [100, 200]])
    assert clip_boxes(boxes, sizes).tolist() == [expected[0], expected[1], [40, 1, 45, 2]]


def test_scale() -> None:
    assert scale_boxes(BOX, (100, 50), (200, 150)).tolist() == [[30, 40, 90, 120]]
    two = torch.cat((BOX, BOX))
    sizes = torch.tensor([[100, 50], [200, 150]])
    assert scale_boxes(two, (100, 50), sizes).tolist() == [[10, 20, 30, 60], [30, 40, 90, 120]]
    back = scale_boxes(scale_boxes(BOX, (7, 11), (560, 300)), (560, 300), (7, 11))
    torch.testing.assert_close(back, BOX)


@given(seeds)
def test_iou(seed: int) -> None:
    a, b = random_boxes(20, seed), random_boxes(20, seed + 1)
    found = box_iou(a, b)
    expected = [iou(tuple(p), tuple(q)) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(found, box_iou(b, a))
    torch.testing.assert_close(box_iou(a, a), torch.ones(20, dtype=torch.float64))
    moved = box_iou(a * 3 + 7, b * 3 + 7)
    torch.testing.assert_close(moved, found)


def test_iou_by_hand() -> None:
    """A perfect 3x3 box scores 1, half of it a half; touching boxes nothing."""
    square = torch.tensor([[0.0, 0.0, 3.0, 3.0]])
    others = torch.tensor(
        [[0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 3.0, 1.5], [3.0, 0.0, 6.0, 3.0], [1.0, 1.0, 4.0, 4.0]]
    )
    found = box_iou(square.expand(4, 4), others)
    assert found.tolist() == pytest.approx([1, 0.5, 0, 4 / 14])


def test_improper_boxes_have_no_overlap() -> None:
    improper = torch.tensor(
        [[0.0, 0, 0, 0], [2, 0, 1, 3], [0, 0, torch.nan, 3], [0, 0, torch.inf, 3], [1, 1, 1, 5]]
    ).requires_grad_()
    whole = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).expand(5, 4)
    found = box_iou(improper, whole)
    assert found.tolist() == [0] * 5
    assert box_iou(improper, improper).tolist() == [0] * 5
    found.sum().backward()
    assert improper.grad is not None
    assert (improper.grad == 0).all()


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_crop_to_image(seed: int, height: int, width: int, keep_aspect: bool) -> None:
    crops = random_boxes(3, seed)
    corners = torch.tensor([[0.0, 0.0, width, height]], dtype=torch.float64).expand(3, 4)
    found = crop_to_image(corners, crops, (height, width), keep_aspect=keep_aspect)
    expected = match_aspect(crops, (height, width)) if keep_aspect else crops
    torch.testing.assert_close(found, expected)
    middle = torch.tensor([width / 2, height / 2], dtype=torch.float64).expand(3, 2)
    found = crop_to_image(middle, crops, (height, width), keep_aspect=keep_aspect)
    torch.testing.assert_close(found, (crops[:, :2] + crops[:, 2:]) / 2)


def test_crop_to_image_takes_several_points() -> None:
    crops = random_boxes(2, 0)
    points = torch.rand(2, 5, 2, dtype=torch.float64)
    boxes = torch.rand(2, 3, 4, dtype=torch.float64)
    for several in (points, boxes):
        found = crop_to_image(several, crops, (4, 6))
        for index in range(several.shape[1]):
            alone = crop_to_image(several[:, index], crops, (4, 6))
            assert torch.equal(found[:, index], alone)


@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_match_aspect(seed: int, height: int, width: int) -> None:
    boxes = random_boxes(5, seed)
    grown = match_aspect(boxes, (height, width))
    x1, y1, x2, y2 = grown.unbind(1)
    torch.testing.assert_close((x2 - x1) * height, (y2 - y1) * width)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    torch.testing.assert_close((grown[:, :2] + grown[:, 2:]) / 2, centers)
    extents, larger = boxes[:, 2:] - boxes[:, :2], grown[:, 2:] - grown[:, :2]
    assert (larger >= extents - 1e-9).all()
    assert ((larger - extents).abs().amin(1) < 1e-9).all()


def test_fill() -> None:
    boxes = torch.cat((BOX, torch.zeros(1, 4), torch.full((1, 4), torch.nan)))
    whole = [0, 0, 20, 10]
    assert fill_boxes(boxes, (10, 20)).tolist() == [BOX[0].tolist(), whole, whole]
    sizes = torch.tensor([[1, 2], [3, 4], [5, 6]])
    assert fill_boxes(boxes, sizes)[1:].tolist() == [[0, 0, 4, 3], [0, 0, 6, 5]]


def test_images_without_pixels() -> None:
    """What is below 1 in a tensor of sizes counts as 1."""
    none = torch.tensor([[0, 0]])
    assert fill_boxes(torch.zeros(1, 4), none).tolist() == [[0, 0, 1, 1]]
    assert clip_boxes(BOX, none).tolist() == [[1, 1, 1, 1]]
    assert scale_boxes(BOX, none, (2, 3)).tolist() == [[30, 40, 90, 120]]
    assert scale_boxes(BOX, (10, 5), none).tolist() == [[2, 2, 6, 6]]


EXTENTS = [1e-30, 1e-20, 1.0, 1e20, 3e38]


@pytest.mark.parametrize("width", EXTENTS)
@pytest.mark.parametrize("height", EXTENTS)
def test_iou_of_boxes_of_any_extent(width: float, height: float) -> None:
    box = torch.tensor([[0.0, 0.0, width, height]], requires_grad=True)
    assert box_iou(box, box).tolist() == [1]
    across = box_iou(box, torch.tensor([[0.0, 0.0, height, width]]))
    share = min(width, height) / max(width, height)
    assert across.tolist() == pytest.approx([share / (2 - share)], rel=1e-4, abs=1e-20)
    across.sum().backward()
    assert box.grad is not None
    assert not box.grad.isnan().any()


def test_sides_beyond_all_numbers_are_improper() -> None:
    box = torch.tensor([[-3e38, 0.0, 3e38, 1.0]])
    assert fill_boxes(box, (10, 20)).tolist() == [[0, 0, 20, 10]]
    assert box_iou(box, box).tolist() == [0]
    half = torch.tensor([[-6e4, -6e4, 6e4, 6e4]], dtype=torch.float16)
    assert torch.equal(fill_boxes(half, (10, 20)), half)


def test_gradients() -> None:
    a = random_boxes(3, 1).requires_grad_()
    b = random_boxes(3, 2).requires_grad_()
    assert gradcheck(box_iou, (a, b))
    assert gradcheck(lambda a: pad_boxes(a, 0.1), (a,))
    assert gradcheck(lambda a: clip_boxes(a, (9, 8)), (a,))
    assert gradcheck(lambda a: scale_boxes(a, (9, 8), (3, 5)), (a,))
    assert gradcheck(lambda a, b: crop_to_image(a, b, (9, 8), keep_aspect=True), (a, b))


def test_compiles() -> None:
    boxes = random_boxes(3, 3)

    def path(boxes: Tensor) -> Tensor:
        grown = clip_boxes(pad_boxes(boxes, 0.1), (12, 12))
        grown = scale_boxes(fill_boxes(grown, (12, 12)), (12, 12), (24, 36))
        return (
            crop_to_image(grown, boxes, (24, 36), keep_aspect=True) * box_iou(boxes, grown)[:, None]
        )

    compiled = torch.compile(path, backend="eager", fullgraph=True)
    assert torch.equal(compiled(boxes), path(boxes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_device(device: torch.device, dtype: torch.dtype) -> None:
    boxes = BOX.to(device, dtype)
    sizes = torch.tensor([[80, 90]], device=device)
    results = [
        pad_boxes(boxes, 0.1),
        clip_boxes(boxes, (80, 90)),
        clip_boxes(boxes, sizes),
        scale_boxes(boxes, (80, 90), sizes),
        crop_to_image(boxes, boxes, (80, 90), keep_aspect=True),
        fill_boxes(boxes, sizes),
    ]
    for result in results:
        assert result.shape == (1, 4)
        assert result.dtype == dtype
        assert result.device.type == device.type
    overlap = box_iou(boxes, boxes)
    assert overlap.shape == (1,)
    assert overlap.dtype == (torch.float32 if dtype == torch.float16 else dtype)
    assert overlap.device.type == device.type


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("side", [200, 300, 2000])
def test_iou_of_half_precision_boxes_with_large_areas(dtype: torch.dtype, side: int) -> None:
    boxes = torch.tensor([[0, 0, side, side], [0, 0, side, side / 2]], dtype=dtype)
    assert box_iou(boxes, boxes[:1].expand(2, 4)).tolist() == [1.0, 0.5]


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"boxes: expected shape \(N, 4\), got \(4,\)"):
        pad_boxes(BOX[0], 0.1)
    with pytest.raises(TypeError, match=r"margin: expected a finite number above -0\.5, got \["):
        pad_boxes(BOX, [0.1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="boxes: expected a tensor of floating dtype"):
        clip_boxes(BOX.long(), (8, 8))
    with pytest.raises(
        ValueError, match=r"size: expected \(height, width\), whole numbers of at least 1, got 8"
    ):
        clip_boxes(BOX, 8)  # type: ignore[arg-type]
    for size in ((8.5, 8), (8, 0), (8, 8, 8)):
        with pytest.raises(ValueError, match=r"size: expected \(height, width\), whole numbers"):
            match_aspect(BOX, size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"from_size: expected shape \(N, 2\) with N = 1"):
        scale_boxes(BOX, torch.ones(3, 2), (8, 8))
    with pytest.raises(ValueError, match="b: expected length 1 as a has, got 2"):
        box_iou(BOX, torch.cat((BOX, BOX)))
    with pytest.raises(ValueError, match=r"points: expected shape \(N, 2\), .* got \(1, 3\)"):
        crop_to_image(torch.ones(1, 3), BOX, (8, 8))
