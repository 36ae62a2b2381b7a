import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck

from ldlcam.cam import CAMHead
from tests.cam.maps import seeds, sides

POOLS = ("avg", "max")


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("bias", [True, False])
def test_scores_are_those_of_pooling_and_linear(pool: str, bias: bool) -> None:
    head = CAMHead(6, 4, pool=pool, bias=bias)  # type: ignore[arg-type]
    features = torch.randn(3, 6, 5, 7)
    pooling = nn.AdaptiveAvgPool2d(1) if pool == "avg" else nn.AdaptiveMaxPool2d(1)
    linear = nn.Linear(6, 4, bias=bias)
    linear.load_state_dict(head.state_dict())
    torch.testing.assert_close(head(features), linear(pooling(features).flatten(1)))


@pytest.mark.parametrize("bias", [True, False])
def test_weights_begin_as_those_of_linear(bias: bool) -> None:
    torch.manual_seed(5)
    linear = nn.Linear(30, 20, bias=bias)
    torch.manual_seed(5)
    head = CAMHead(30, 20, bias=bias)
    assert torch.equal(head.weight, linear.weight)
    assert (head.bias is None) == (not bias)
    if bias:
        assert torch.equal(head.bias, linear.bias)  # type: ignore[arg-type]


@given(st.integers(1, 5), sides, sides, st.integers(0, 3), seeds)
def test_heatmap_mean_is_the_score(
    channels: int, height: int, width: int, window: int, seed: int
) -> None:
    torch.manual_seed(seed)
    head = CAMHead(channels, 6, pool="avg").double()
    features = torch.randn(4, channels, height, width, dtype=torch.float64)
    classes = torch.randint(6, (4,))
    heatmaps = head.heatmaps(features, classes, window=window)
    assert heatmaps.shape == (4, height, width)
    expected = window_means(head(features) - head.bias, classes, window)
    torch.testing.assert_close(heatmaps.mean((1, 2)), expected)


@pytest.mark.parametrize("pool", POOLS)
@given(st.integers(1, 5), sides, sides, st.integers(0, 3), seeds)
def test_evidence_sums_to_the_score(
    pool: str, channels: int, height: int, width: int, window: int, seed: int
) -> None:
    torch.manual_seed(seed)
    head = CAMHead(channels, 6, pool=pool).double()  # type: ignore[arg-type]
    features = torch.randn(4, channels, height, width, dtype=torch.float64)
    features = features.clamp(min=0)  # ties at 0, as after ReLU
    classes = torch.randint(6, (4,))
    evidence = head.evidence_maps(features, classes, window=window)
    assert evidence.shape == (4, height, width)
    expected = window_means(head(features) - head.bias, classes, window)
    torch.testing.assert_close(evidence.sum((1, 2)), expected)


def window_means(scores: Tensor, classes: Tensor, window: int) -> Tensor:
    means = []
    for row, chosen in zip(scores, classes.tolist(), strict=True):
        means.append(row[max(chosen - window, 0) : chosen + window + 1].mean())
    return torch.stack(means)


def test_max_evidence_lies_at_the_maxima() -> None:
    head = CAMHead(2, 1, pool="max", bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, -1.0]]))
    features = torch.zeros(1, 2, 3, 3)
    features[0, 0, 1, 2] = 5
    features[0, 1, 1, 2] = 3
    features[0, 1, 0, 0] = 4
    evidence = head.evidence_maps(features, torch.tensor([0]))
    assert evidence[0].tolist() == [[-4, 0, 0], [0, 0, 10], [0, 0, 0]]


@pytest.mark.parametrize("pool", POOLS)
def test_classes_default_to_the_highest_score(pool: str) -> None:
    head = CAMHead(4, 7, pool=pool)  # type: ignore[arg-type]
    features = torch.randn(5, 4, 3, 3) + 9 * torch.randn(5, 4, 1, 1)
    highest = head(features).argmax(1)
    assert highest.unique().numel() > 1
    assert torch.equal(head.heatmaps(features), head.heatmaps(features, highest))
    assert torch.equal(head.evidence_maps(features), head.evidence_maps(features, highest))


def test_later_weights_count() -> None:
    head = CAMHead(4, 3)
    features, classes = torch.rand(1, 4, 2, 2), torch.tensor([1])
    before = head.heatmaps(features, classes)
    with torch.no_grad():
        head.weight.mul_(2)
    torch.testing.assert_close(head.heatmaps(features, classes), 2 * before)


@pytest.mark.parametrize("pool", POOLS)
def test_gradients(pool: str) -> None:
    head = CAMHead(3, 4, pool=pool).double()  # type: ignore[arg-type]
    features = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    classes = torch.tensor([0, 3])
    assert gradcheck(head, (features,))
    assert gradcheck(lambda f: head.heatmaps(f, classes, window=1), (features,))
    assert gradcheck(lambda f: head.evidence_maps(f, classes), (features,))
    head.heatmaps(features, classes).sum().backward()
    assert head.weight.grad is not None
    assert (head.weight.grad[[0, 3]] != 0).all()
    assert (head.weight.grad[[1, 2]] == 0).all()


@pytest.mark.parametrize("pool", POOLS)
def test_compiles(pool: str) -> None:
    head = CAMHead(3, 4, pool=pool)  # type: ignore[arg-type]
    features = torch.randn(2, 3, 4, 5)

    def path(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, heatmaps = head(features), head.heatmaps(features, window=1)
        return scores, heatmaps, head.evidence_maps(features)

    compiled = torch.compile(path, backend="eager", fullgraph=True)
    for found, expected in zip(compiled(features), path(features), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pool", POOLS)
def test_autocast(pool: str) -> None:
    head = CAMHead(3, 4, pool=pool)  # type: ignore[arg-type]
    features = torch.randn(2, 3, 4, 5)
    exact = head.heatmaps(features), head.evidence_maps(features)
    classes = head(features).argmax(1)
    with torch.autocast("cpu", torch.bfloat16):
        for given in (features, features.bfloat16()):
            found = head.heatmaps(given, classes), head.evidence_maps(given, classes)
            for rounded, expected in zip(found, exact, strict=True):
                torch.testing.assert_close(rounded.float(), expected, atol=0.05, rtol=0.05)


def test_prints_and_saves() -> None:
    head = CAMHead(3, 4, pool="max", bias=False)
    assert repr(head) == "CAMHead(3, 4, pool='max', bias=False)"
    assert set(head.state_dict()) == {"weight"}
    assert set(CAMHead(3, 4).state_dict()) == {"weight", "bias"}


def test_errors() -> None:
    with pytest.raises(ValueError, match="pool: expected one of 'avg', 'max', got 'mean'"):
        CAMHead(3, 4, pool="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 1, got 0"):
        CAMHead(3, 0)
    head = CAMHead(3, 4)
    for method in (head, head.heatmaps, head.evidence_maps):
        with pytest.raises(ValueError, match=r"features: expected shape \(N, C, h, w\) with C = 3"):
            method(torch.rand(2, 5, 4, 4))
        with pytest.raises(ValueError, match=r"features: expected shape .* got \(2, 3\)"):
            method(torch.rand(2, 3))


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_device(device: torch.device, dtype: torch.dtype, pool: str) -> None:
    head = CAMHead(3, 4, pool=pool).to(device, dtype)  # type: ignore[arg-type]
    features = torch.rand(2, 3, 5, 6, device=device, dtype=dtype)
    results = (head(features), head.heatmaps(features, window=1), head.evidence_maps(features))
    for result, shape in zip(results, ((2, 4), (2, 5, 6), (2, 5, 6)), strict=True):
        assert result.shape == shape
        assert result.dtype == dtype
        assert result.device.type == device.type
