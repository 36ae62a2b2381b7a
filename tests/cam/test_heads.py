import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.utils import prune

from ldlcam.cam import CAMHead
from tests.cam.maps import seeds, sides

POOLS = ("avg", "max", "lse", "gem")


@pytest.mark.parametrize("pool", ["avg", "max"])
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
    assert torch.equal(head.evidence_maps(features[:0], classes[:0]), evidence[:0])


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
    assert repr(head) == "CAMHead(\n  3, 4, bias=False\n  (pool): MaxPool()\n)"
    assert set(head.state_dict()) == {"weight"}
    assert set(CAMHead(3, 4).state_dict()) == {"weight", "bias"}
    assert set(CAMHead(3, 4, pool="gem").state_dict()) == {"weight", "bias", "pool.power"}


def test_any_module_or_function_may_pool() -> None:
    def median(features: Tensor) -> Tensor:
        return features.flatten(2).median(2).values

    features, classes = torch.rand(2, 3, 3, 5), torch.tensor([0, 3])
    for pool in (median, nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())):
        head = CAMHead(3, 4, pool=pool)
        linear = nn.Linear(3, 4)
        linear.load_state_dict(head.state_dict())
        torch.testing.assert_close(head(features), linear(pool(features)))
        average = CAMHead.from_classifier(linear)
        heatmaps = head.heatmaps(features, classes)
        torch.testing.assert_close(heatmaps, average.heatmaps(features, classes))
        with pytest.raises(TypeError, match="pool: expected a pooling that has `evidence`"):
            head.evidence_maps(features, classes)
    assert "pool=<function" in repr(CAMHead(3, 4, pool=median))


# ------------------------------------------------------------------------------- from_classifier


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pool", POOLS)
def test_a_classifier_lends_its_weights(pool: str, bias: bool) -> None:
    linear = nn.Linear(3, 4, bias=bias).double().eval()
    head = CAMHead.from_classifier(linear, pool=pool)  # type: ignore[arg-type]
    assert head.weight is linear.weight
    assert head.bias is linear.bias
    assert not head.training
    features = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    assert head(features).dtype == torch.float64
    assert {p.dtype for p in head.parameters()} == {torch.float64}
    with torch.no_grad():
        linear.weight.mul_(2)
    torch.testing.assert_close(head(features), linear(head.pool(features)))


def test_a_classifier_may_have_layers_that_do_nothing() -> None:
    linear = nn.Linear(3, 4)
    wrapped = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), linear)
    assert CAMHead.from_classifier(wrapped).weight is linear.weight


@pytest.mark.parametrize(
    ("classifier", "got"),
    [
        (nn.Conv2d(3, 4, 1), "Conv2d"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "Linear, ReLU, Linear"),
        (nn.Identity(), "no layer"),
        (nn.Sequential(), "no layer"),
    ],
)
def test_other_classifiers_are_refused(classifier: nn.Module, got: str) -> None:
    with pytest.raises(TypeError, match=f"classifier: expected one linear layer, .*got {got}$"):
        CAMHead.from_classifier(classifier)


def test_computed_weights_are_refused() -> None:
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    with pytest.raises(TypeError, match=r"classifier: expected .* whose weight is a parameter"):
        CAMHead.from_classifier(linear)
    nn.utils.parametrize.remove_parametrizations(linear, "weight")
    assert CAMHead.from_classifier(linear).weight is linear.weight
    pruned = prune.l1_unstructured(nn.Linear(3, 4), "bias", 1)
    with pytest.raises(TypeError, match=r"classifier: expected .* whose bias is a parameter"):
        CAMHead.from_classifier(pruned)


@pytest.mark.parametrize("pool", POOLS)
def test_no_images(pool: str) -> None:
    head, features = CAMHead(8, 4, pool=pool), torch.rand(0, 8, 5, 6)  # type: ignore[arg-type]
    for method in (head.heatmaps, head.evidence_maps):
        assert method(features, window=1).shape == (0, 5, 6)


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "densenet121"])
def test_timm_networks_keep_their_scores(name: str) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, num_classes=5).eval()
    head = CAMHead.from_classifier(network.get_classifier())
    images = torch.rand(2, 3, 96, 80)
    with torch.no_grad():
        features = network.forward_features(images)
        torch.testing.assert_close(head(features), network(images))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_torchvision_networks_keep_their_scores(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    network = models.get_model(name, num_classes=5).eval()
    ends = {"resnet18": "layer4", "mobilenet_v2": "features", "shufflenet_v2_x0_5": "conv5"}
    trunk = extraction.create_feature_extractor(network, {ends[name]: "map"})
    classifier = network.classifier if hasattr(network, "classifier") else network.fc
    head = CAMHead.from_classifier(classifier)
    images = torch.rand(2, 3, 96, 80)
    with torch.no_grad():
        torch.testing.assert_close(head(trunk(images)["map"]), network(images))


def test_errors() -> None:
    with pytest.raises(ValueError, match="pool: expected one of 'avg', 'max', 'lse', 'gem', got"):
        CAMHead(3, 4, pool="mean")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pool: expected a name or a callable, got int"):
        CAMHead(3, 4, pool=3)  # type: ignore[arg-type]
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
