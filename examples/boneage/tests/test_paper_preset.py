"""The published networks, as far as a CPU can check them: that they are made, and learn a step."""

from __future__ import annotations

import pytest
import torch

from boneage.config import Config, load_config
from boneage.data.batches import Batch
from boneage.experiments.rows import EXPERIMENTS, Row
from boneage.networks.backbones import FeatureNetwork
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.regressor import AgeNetwork
from boneage.networks.training import AgeTask, LocalizerTask, _Task

# Millions of weights without the classifiers that were published with them, as torchvision's and
# timm's documentation count them.
_BACKBONES = {"vgg19": 20.0, "inception_v3": 21.8, "resnet50": 23.5, "legacy_xception": 20.8}


def _base() -> Config:
    """The preset without weights to be downloaded."""
    random = [
        f"localization.{name}.backbone.pretrained=false" for name in ("hand", "region1", "region2")
    ]
    return load_config("paper", [*random, "training.backbone.pretrained=false"])


def _rows() -> dict[str, Row]:
    """One row for every shape of network in Tables II to V."""
    shapes = {}
    for name in ("table-2", "table-3", "table-4", "table-5"):
        for row in EXPERIMENTS[name](_base()).rows:
            if not row.changes.get("training.backbone.pretrained"):
                own = row.config(_base(), 0).training
                shape = (
                    own.backbone.name,
                    own.size,
                    own.sex,
                    own.sex_layers,
                    row.loss,
                    len(row.regions),
                )
                shapes.setdefault(shape, row)
    return {"-".join(map(str, shape)): row for shape, row in shapes.items()}


ROWS = _rows()


def _one_step(task: _Task, regions: int, size: int) -> None:
    """One step of training on two images: every weight that learns has a finite gradient."""
    images = torch.randint(0, 256, (2, regions, size, size), dtype=torch.uint8)
    batch = Batch(images, torch.tensor([60.0, 150.0]), torch.tensor([1.0, -1.0]), torch.empty(2, 0))
    (optimizer,), _ = task.configure_optimizers()
    task.log = lambda *_, **__: None  # there is no trainer to log to
    before = [weight.detach().clone() for weight in task.network.parameters()]
    loss = task.training_step(task.on_after_batch_transfer(batch, 0), 0)
    loss.backward()
    gradients = [weight.grad for weight in task.network.parameters() if weight.grad is not None]
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(map(torch.numel, gradients)) > 0.95 * sum(map(torch.numel, before))
    optimizer.step()
    after = task.network.parameters()
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("name", _BACKBONES)
def test_published_backbones_have_their_weights(name: str) -> None:
    row = next(one for one in EXPERIMENTS["table-2"](_base()).rows if one.label == name)
    own = row.config(_base(), 0)
    with torch.device("meta"):
        network = FeatureNetwork(own.training.backbone)
    count = sum(map(torch.numel, network.parameters())) / 1e6
    assert count == pytest.approx(_BACKBONES[name], abs=0.05)
    assert (own.training.size, own.training.sex) == (224, False)


@pytest.mark.long
@pytest.mark.parametrize("name", ROWS)
def test_published_networks_learn_a_step(name: str) -> None:
    row = ROWS[name]
    own = row.config(_base(), 0)
    torch.manual_seed(0)
    network = AgeNetwork(own.training, own.training.models[0], own.bins)
    _one_step(AgeTask(network, own.training, row.loss, 1), len(row.regions), own.training.size)


@pytest.mark.long
@pytest.mark.parametrize("region", ["hand", "region1", "region2"])
def test_published_attention_networks_learn_a_step(region: str) -> None:
    plan = _base().localization
    own = getattr(plan, region)
    torch.manual_seed(0)
    network = LocalizerNetwork(own, _base().bins, plan)
    assert own.size == (300 if region == "hand" else 560)
    _one_step(LocalizerTask(network, own, 1), 1, own.size)
