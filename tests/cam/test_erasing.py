import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.autograd import gradcheck

from ldlcam.cam import erase_boxes, erase_masks

FILLS = ("random", "noise", "mean", 0.25)


def inside(box: list[float], height: int, width: int) -> Tensor:
    """Pixels whose centre is in a half-open box, one by one."""
    x1, y1, x2, y2 = box
    mask = torch.zeros(height, width, dtype=torch.bool)
    for row in range(height):
        for column in range(width):
            mask[row, column] = x1 <= column + 0.5 < x2 and y1 <= row + 0.5 < y2
    return mask


@pytest.mark.parametrize("fill", FILLS)
@given(box=st.lists(st.floats(-3, 12), min_size=4, max_size=4))
def test_pixels_inside_are_replaced_and_no_others(fill: str | float, box: list[float]) -> None:
    images = torch.rand(1, 2, 6, 9) + 2  # beyond every value that fills but the mean
    erased = erase_boxes(images, torch.tensor([box]), fill=fill)  # type: ignore[arg-type]
    expected = inside(box, 6, 9)
    if box[2] <= box[0] or box[3] <= box[1]:
        expected = torch.zeros_like(expected)
    assert torch.equal((erased != images).any(1)[0], expected)
    assert torch.equal((erased != images).all(1)[0], expected)


def test_half_open_boxes_share_out_the_pixels() -> None:
    images = torch.ones(2, 1, 4, 4)
    boxes = torch.tensor([[0.0, 0.0, 1.5, 4.0], [1.5, 0.0, 4.0, 4.0]])
    left, right = erase_boxes(images, boxes, fill=0.0)[:, 0]
    assert torch.equal(left + right, torch.ones(4, 4))


@pytest.mark.parametrize("fill", FILLS)
def test_improper_boxes_leave_images_unchanged(fill: str | float) -> None:
    nan, inf = torch.nan, torch.inf
    boxes = torch.tensor(
        [
            [0, 0, 0, 0],
            [1, 1, 1, 3],
            [3, 1, 1, 3],
            [0, 0, nan, 3],
            [-inf, 0, inf, 3],
            [9, 9, 12, 12],
        ]
    ).float()
    images = torch.rand(6, 1, 5, 5)
    erased = erase_boxes(images, boxes, fill=fill)  # type: ignore[arg-type]
    assert torch.equal(erased, images)
    assert erased.data_ptr() != images.data_ptr()


def test_whole_images_can_be_erased() -> None:
    images = torch.rand(1, 3, 5, 6)
    erased = erase_boxes(images, torch.tensor([[-1.0, -1.0, 9.0, 9.0]]), fill=0.5)
    assert (erased == 0.5).all()


def test_random_is_one_value_per_image() -> None:
    boxes = torch.tensor([[1.0, 1.0, 4.0, 5.0]]).expand(50, 4)
    erased = erase_boxes(torch.zeros(50, 3, 6, 6), boxes, value_range=(2, 3))
    patches = erased[:, :, 1:5, 1:4].flatten(1)
    assert (patches == patches[:, :1]).all()
    assert patches.min() >= 2
    assert patches.max() <= 3
    assert patches[:, 0].unique().numel() == 50


def test_noise_differs_in_every_pixel_and_channel() -> None:
    box = torch.tensor([[0.0, 0.0, 64.0, 64.0]])
    erased = erase_boxes(torch.zeros(1, 3, 64, 64), box, fill="noise", value_range=(-1, 1))
    values = erased.flatten()
    assert values.unique().numel() > 0.999 * values.numel()
    assert stats.kstest(values.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    pairs = erased[0, 0].flatten()
    assert abs(np.corrcoef(pairs[:-1], pairs[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(erased[0, 0].flatten(), erased[0, 1].flatten())[0, 1]) < 0.05


def test_random_values_of_successive_seeds_are_uniform() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(4000, 4)
    erased = erase_boxes(torch.zeros(4000, 1, 1, 1), boxes, seeds=torch.arange(4000))
    values = erased.flatten().numpy()
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.06


def test_mean_is_the_channels_own() -> None:
    images = torch.rand(2, 3, 6, 6)
    erased = erase_boxes(images, torch.tensor([[0.0, 0.0, 2.0, 2.0]]).expand(2, 4), fill="mean")
    expected = images.mean((2, 3), keepdim=True).expand(2, 3, 2, 2)
    torch.testing.assert_close(erased[..., :2, :2], expected)


@pytest.mark.parametrize("fill", ["random", "noise"])
def test_seeds_belong_to_images(fill: str) -> None:
    images = torch.zeros(4, 1, 5, 5)
    boxes = torch.tensor([[0.0, 0.0, 5.0, 5.0]]).expand(4, 4)
    seeds = torch.tensor([3, -1, 2**40 + 3, 3])
    erased = erase_boxes(images, boxes, fill=fill, seeds=seeds)  # type: ignore[arg-type]
    assert torch.equal(erased[0], erased[3])
    assert not torch.equal(erased[0], erased[1])
    assert not torch.equal(erased[0], erased[2])
    order = torch.tensor([2, 0])
    again = erase_boxes(images[:2], boxes[:2], fill=fill, seeds=seeds[order])  # type: ignore[arg-type]
    assert torch.equal(again, erased[order])


def test_seeded_values_do_not_change() -> None:
    """Values of a seed are part of what a run can be repeated by."""
    images, box = torch.zeros(1, 1, 1, 2), torch.tensor([[0.0, 0.0, 2.0, 1.0]])
    noise = erase_boxes(images, box, fill="noise", seeds=torch.tensor([7]))
    assert noise.flatten().tolist() == pytest.approx([0.7464283, 0.4462648], abs=1e-7)


def test_without_seeds_torch_decides() -> None:
    images, box = torch.zeros(1, 1, 4, 4), torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    torch.manual_seed(1)
    first, second = erase_boxes(images, box), erase_boxes(images, box)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(erase_boxes(images, box), first)


@pytest.mark.parametrize("fill", FILLS)
def test_gradients_reach_what_is_kept(fill: str | float) -> None:
    images = torch.rand(1, 1, 4, 4, requires_grad=True)
    erased = erase_boxes(images, torch.tensor([[0.0, 0.0, 2.0, 2.0]]), fill=fill)  # type: ignore[arg-type]
    erased[..., 2:].sum().backward()
    assert images.grad is not None
    assert (images.grad[..., 2:] == 1).all()
    assert (images.grad[..., :2, :2] == 0).all()


@pytest.mark.parametrize("fill", FILLS)
def test_compiles(fill: str | float) -> None:
    images, boxes = torch.rand(2, 3, 5, 6), torch.tensor([[1.0, 1.0, 4.0, 4.0]]).expand(2, 4)
    seeds = torch.tensor([1, 2])

    def path(images: Tensor, boxes: Tensor, seeds: Tensor) -> Tensor:
        return erase_boxes(images, boxes, fill=fill, seeds=seeds)  # type: ignore[arg-type]

    compiled = torch.compile(path, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images, boxes, seeds), path(images, boxes, seeds))


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_device(device: torch.device, dtype: torch.dtype, fill: str | float) -> None:
    images = torch.rand(2, 3, 5, 6, device=device).to(dtype)
    boxes = torch.tensor([[1.0, 1.0, 4.0, 4.0]], device=device).expand(2, 4)
    seeds = torch.tensor([1, 2], device=device)
    erased = erase_boxes(images, boxes, fill=fill, seeds=seeds)  # type: ignore[arg-type]
    assert erased.shape == images.shape
    assert erased.dtype == dtype
    assert erased.device.type == device.type
    if device.type == "cuda":
        on_cpu = erase_boxes(images.cpu(), boxes.cpu(), fill=fill, seeds=seeds.cpu())  # type: ignore[arg-type]
        torch.testing.assert_close(erased.cpu(), on_cpu)


# ------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@given(box=st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_the_mask_of_a_box_erases_as_the_box_does(
    fill: str | float, dtype: torch.dtype, box: list[int]
) -> None:
    images, seeds = torch.rand(2, 3, 7, 9), torch.tensor([4, 5])
    mask = inside(box, 7, 9).to(dtype)
    if box[2] <= box[0] or box[3] <= box[1]:
        mask = torch.zeros_like(mask)
    by_mask = erase_masks(images, mask.expand(2, 7, 9), fill=fill, seeds=seeds)  # type: ignore[arg-type]
    boxes = torch.tensor([box]).float().expand(2, 4)
    by_box = erase_boxes(images, boxes, fill=fill, seeds=seeds)  # type: ignore[arg-type]
    assert torch.equal(by_mask, by_box)


@pytest.mark.parametrize("fill", FILLS)
def test_soft_masks_mix(fill: str | float) -> None:
    images, masks, seeds = torch.rand(2, 3, 5, 4), torch.rand(2, 5, 4), torch.tensor([1, 2])
    whole = erase_masks(images, torch.ones(2, 5, 4), fill=fill, seeds=seeds)  # type: ignore[arg-type]
    mixed = erase_masks(images, masks, fill=fill, seeds=seeds)  # type: ignore[arg-type]
    expected = (
        images.numpy() * (1 - masks[:, None].numpy()) + whole.numpy() * masks[:, None].numpy()
    )
    np.testing.assert_allclose(mixed.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fill", FILLS)
def test_what_is_kept_or_erased_wholly_takes_nothing_of_the_other(fill: str | float) -> None:
    images = torch.rand(2, 1, 3, 3)
    images[0, 0, 1, 1] = torch.nan
    kept, erased = (
        erase_masks(images, torch.full((2, 3, 3), share), fill=fill)  # type: ignore[arg-type]
        for share in (0.0, 1.0)
    )
    torch.testing.assert_close(kept, images, equal_nan=True)
    assert fill == "mean" or erased.isfinite().all()


def test_mask_values_beyond_the_range_count_as_its_ends() -> None:
    images = torch.rand(1, 2, 1, 5)
    masks = torch.tensor([[[-3.0, torch.nan, 7.0, torch.inf, -torch.inf]]])
    erased = erase_masks(images, masks, fill=9.0)
    assert torch.equal(erased[..., [0, 1, 4]], images[..., [0, 1, 4]])
    assert (erased[..., [2, 3]] == 9).all()


@pytest.mark.parametrize("fill", FILLS)
def test_gradients_of_soft_masks(fill: str | float) -> None:
    images = torch.rand(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    masks = (0.1 + 0.8 * torch.rand(2, 3, 3, dtype=torch.float64)).requires_grad_()
    seeds = torch.tensor([1, 2])
    assert gradcheck(
        lambda i, m: erase_masks(i, m, fill=fill, seeds=seeds),  # type: ignore[arg-type]
        (images, masks),
    )


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_device_masks(
    device: torch.device, dtype: torch.dtype, kind: torch.dtype, fill: str | float
) -> None:
    images = torch.rand(2, 3, 5, 6, device=device).to(dtype)
    masks = (torch.rand(2, 5, 6, device=device) > 0.5).to(kind)
    seeds = torch.tensor([1, 2], device=device)
    erased = erase_masks(images, masks, fill=fill, seeds=seeds)  # type: ignore[arg-type]
    assert erased.shape == images.shape
    assert erased.dtype == dtype
    assert erased.device.type == device.type


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_masks_compile(kind: torch.dtype) -> None:
    images, masks = torch.rand(2, 3, 5, 6), (torch.rand(2, 5, 6) > 0.5).to(kind)
    compiled = torch.compile(erase_masks, backend="eager", fullgraph=True)
    seeds = torch.tensor([1, 2])
    found = compiled(images, masks, seeds=seeds)
    assert torch.equal(found, erase_masks(images, masks, seeds=seeds))


def test_a_mean_passes_gradients_on_to_all_pixels() -> None:
    images = torch.rand(1, 1, 2, 2, requires_grad=True)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    for fill, expected in ((0.0, [[0, 1], [1, 1]]), ("mean", [[0.25, 1.25], [1.25, 1.25]])):
        erased = erase_boxes(images, boxes, fill=fill)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(erased.sum(), images)
        assert gradient[0, 0].tolist() == expected


def test_errors_of_masks() -> None:
    images = torch.rand(2, 3, 8, 6)
    with pytest.raises(ValueError, match=r"masks: expected shape \(N, H, W\) with N = 2, H = 8"):
        erase_masks(images, torch.zeros(2, 6, 8))
    with pytest.raises(ValueError, match=r"masks: expected shape \(N, H, W\)"):
        erase_masks(images, torch.zeros(2, 1, 8, 6))
    with pytest.raises(
        TypeError, match=r"masks: expected a tensor of floating dtype, got torch\.uint8"
    ):
        erase_masks(images, torch.zeros(2, 8, 6, dtype=torch.uint8))
    with pytest.raises(ValueError, match="fill: expected one of"):
        erase_masks(images, torch.zeros(2, 8, 6), fill="zero")  # type: ignore[arg-type]


def test_errors() -> None:
    images, boxes = torch.rand(2, 3, 8, 8), torch.rand(2, 4)
    with pytest.raises(ValueError, match="fill: expected one of 'random', 'noise', 'mean', got"):
        erase_boxes(images, boxes, fill="zero")  # type: ignore[arg-type]
    for fill in ([0.5, 0.5, 0.5], None, torch.rand(3)):
        with pytest.raises(TypeError, match="fill: expected a number or one of 'random', 'noise'"):
            erase_boxes(images, boxes, fill=fill)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="boxes: expected length 2 as images has, got 1"):
        erase_boxes(images, boxes[:1])
    with pytest.raises(ValueError, match=r"value_range: expected \(lowest, highest\)"):
        erase_boxes(images, boxes, value_range=(1, 0))
    with pytest.raises(ValueError, match=r"value_range: expected \(lowest, highest\), got 3"):
        erase_boxes(images, boxes, value_range=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"seeds: expected shape \(N,\) with N = 2, got \(1,\)"):
        erase_boxes(images, boxes, seeds=torch.tensor([1]))
    with pytest.raises(TypeError, match="seeds: expected a tensor of integer dtype"):
        erase_boxes(images, boxes, seeds=torch.rand(2))


def test_the_default_dtype_is_not_that_of_the_pixels(half_by_default: None) -> None:
    images = torch.ones(1, 1, 1, 600, dtype=torch.float32)
    box = torch.tensor([[301.0, 0.0, 302.0, 1.0]], dtype=torch.float32)
    erased = erase_boxes(images, box, fill=0.0)
    assert (erased.flatten() == 0).nonzero().flatten().tolist() == [301]
