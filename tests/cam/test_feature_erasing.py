import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck

from ldlcam.cam import CAMHead, FeatureErasing, erase_features
from tests.cam.maps import seeds, sides


@given(st.integers(1, 4), sides, sides, st.floats(0.05, 1), seeds)
def test_hot_cells_are_erased_and_no_others(
    channels: int, height: int, width: int, threshold: float, seed: int
) -> None:
    torch.manual_seed(seed)
    features, maps = torch.rand(2, channels, height, width) + 1, torch.rand(2, height, width)
    erased = erase_features(features, maps, threshold)
    for i in range(2):
        for row in range(height):
            for column in range(width):
                hot = maps[i, row, column] >= threshold * maps[i].max()
                hot = hot and maps[i].max() > maps[i].min()
                expected = torch.zeros(channels) if hot else features[i, :, row, column]
                assert torch.equal(erased[i, :, row, column], expected)


@pytest.mark.parametrize("value", [0.0, 3.0, -1.0, math.nan, math.inf])
def test_a_map_that_shows_no_place_erases_nothing(value: float) -> None:
    features = torch.rand(2, 3, 4, 4)
    maps = torch.stack((torch.full((4, 4), value), torch.arange(16.0).view(4, 4)))
    erased = erase_features(features, maps)
    assert torch.equal(erased[0], features[0])
    assert not torch.equal(erased[1], features[1])


def test_gradients_reach_what_is_kept() -> None:
    features = torch.rand(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    maps = torch.tensor([[[0.1, 1.0], [0.2, 0.3]]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda f: erase_features(f, maps.detach()), (features,))
    erase_features(features, maps).sum().backward()
    assert features.grad is not None
    assert features.grad[0, 0].tolist() == [[1, 0], [1, 1]]
    assert maps.grad is None


# --------------------------------------------------------------------------------- FeatureErasing


@pytest.mark.parametrize("hidden", [None, 6])
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_both_are_heads_and_the_second_reads_the_rest(pool: str, hidden: int | None) -> None:
    head = FeatureErasing(5, 4, pool=pool, hidden=hidden, threshold=0.7)  # type: ignore[arg-type]
    features, classes = torch.rand(3, 5, 6, 7), torch.tensor([0, 3, 1])
    own = head.first_branch(features)
    maps = torch.einsum("nc,nchw->nhw", head.first.weight[classes], own)
    hot = maps >= 0.7 * maps.amax((1, 2), keepdim=True)
    hot &= maps.amax((1, 2), keepdim=True) > 0
    left = head.second_branch(features * ~hot[:, None])
    scores = head(features, classes)
    torch.testing.assert_close(scores.first, head.first(own))
    torch.testing.assert_close(scores.second, head.second(left))
    drawn = head.heatmaps(features, classes, window=1)
    torch.testing.assert_close(drawn.first, head.first.heatmaps(own, classes, window=1))
    torch.testing.assert_close(drawn.second, head.second.heatmaps(left, classes, window=1))


def test_without_classes_the_highest_scores_are_taken() -> None:
    head, features = FeatureErasing(5, 4), torch.rand(3, 5, 6, 7)
    first = head.first(features).argmax(1)
    for found, expected in zip(head(features), head(features, first), strict=True):
        torch.testing.assert_close(found, expected)
    second = head(features).second.argmax(1)
    left = erase_features(features, head.first.heatmaps(features), 0.6)
    expected = head.second.heatmaps(left, second)
    torch.testing.assert_close(head.heatmaps(features).second, expected)


def test_erasing_teaches_the_first_nothing() -> None:
    """Through the region that it erases, the first classifier gets no gradient of the second."""
    head = FeatureErasing(3, 2, hidden=4)
    head(torch.rand(2, 3, 5, 5), torch.tensor([0, 1])).second.sum().backward()
    assert all(p.grad is None for p in [*head.first.parameters(), *head.first_branch.parameters()])
    assert all(p.grad is not None for p in head.second.parameters())


def test_the_second_finds_the_other_clue() -> None:
    """Two clues tell the class, one in either corner: each classifier ends on one of them."""

    def draw(count: int) -> tuple[Tensor, Tensor]:
        classes = torch.randint(2, (count,))
        features = 0.2 * torch.rand(count, 4, 6, 6)
        rows = torch.arange(count)
        features[rows, classes, 1, 1] += 3  # the strong clue
        features[rows, 2 + classes, 4, 4] += 1  # the weak one
        return features, classes

    head = FeatureErasing(4, 2, pool="max")
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(150):
        features, classes = draw(32)
        scores = head(features, classes)
        loss = sum(nn.functional.cross_entropy(score, classes) for score in scores)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    features, classes = draw(200)
    scores, maps = head(features), head.heatmaps(features)
    for score, drawn, place in zip(scores, maps, (1 * 6 + 1, 4 * 6 + 4), strict=True):
        assert (score.argmax(1) == classes).float().mean() > 0.95
        assert (drawn.flatten(1).argmax(1) == place).float().mean() > 0.95


def test_prints_and_saves() -> None:
    head = FeatureErasing(3, 4, hidden=2)
    assert "threshold=0.6" in repr(head)
    names = {name.split(".")[0] for name in head.state_dict()}
    assert names == {"first", "second", "first_branch", "second_branch"}
    assert set(FeatureErasing(3, 4).state_dict()) == {
        "first.weight", "first.bias", "second.weight", "second.bias",
    }  # fmt: skip
    assert isinstance(head.first, CAMHead)


def test_compiles() -> None:
    head, features = FeatureErasing(3, 4, hidden=2), torch.rand(2, 3, 5, 6)
    compiled = torch.compile(head, backend="eager", fullgraph=True)
    for found, expected in zip(compiled(features), head(features), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_device(device: torch.device, dtype: torch.dtype) -> None:
    head = FeatureErasing(3, 4).to(device, dtype)
    features = torch.rand(2, 3, 5, 6, device=device, dtype=dtype)
    for found, shape in ((head(features), (2, 4)), (head.heatmaps(features), (2, 5, 6))):
        for part in found:
            assert part.shape == shape
            assert part.dtype == dtype
            assert part.device.type == device.type


def test_errors() -> None:
    features = torch.rand(2, 3, 4, 5)
    with pytest.raises(ValueError, match=r"heatmaps: expected shape \(N, h, w\) with h = 4, w = 5"):
        erase_features(features, torch.rand(2, 5, 4))
    with pytest.raises(ValueError, match="heatmaps: expected length 2 as features has, got 1"):
        erase_features(features, torch.rand(1, 4, 5))
    with pytest.raises(TypeError, match="heatmaps: expected a tensor, got list"):
        erase_features(features, torch.rand(2, 4, 5).tolist())  # type: ignore[arg-type]
    for make in (
        lambda: erase_features(features, torch.rand(2, 4, 5), 1.5),
        lambda: FeatureErasing(3, 4, threshold=1.5),
    ):
        with pytest.raises(ValueError, match=r"threshold: expected a number in \(0, 1\], got 1.5"):
            make()


@pytest.mark.parametrize("hidden", [None, 4])
def test_errors_of_the_head(hidden: int | None) -> None:
    head = FeatureErasing(8, 4, hidden=hidden)
    for method in (head, head.heatmaps):
        with pytest.raises(
            ValueError, match=r"features: expected shape .* C = 8, got \(2, 5, 6, 6"
        ):
            method(torch.rand(2, 5, 6, 6))
        with pytest.raises(TypeError, match="features: expected a tensor, got NoneType"):
            method(None)
    with pytest.raises(ValueError, match="in_channels: expected an integer of at least 1, got 0"):
        FeatureErasing(0, 4, hidden=hidden)
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"hidden: expected an integer .* 1, got {value}"):
            FeatureErasing(8, 4, hidden=value)


@pytest.mark.parametrize("hidden", [None, 4])
def test_no_images(hidden: int | None) -> None:
    head = FeatureErasing(8, 4, hidden=hidden)
    for part in head.heatmaps(torch.rand(0, 8, 5, 6), window=1):
        assert part.shape == (0, 5, 6)
