"""Networks answer wherever they are, and where that is, is what the configuration says."""

import numpy as np
import pytest
import torch

from boneage.config import (
    Backbone,
    BinRange,
    Hardware,
    Localization,
    Localizer,
    Model,
    Reading,
    Training,
)
from boneage.errors import UserError
from boneage.networks.devices import pick_device
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.reading import ask
from boneage.networks.regions import attend
from boneage.networks.regressor import AgeNetwork

CUDA = torch.cuda.is_available()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not CUDA, reason="no CUDA"))]
SMALL = Backbone(name="test_resnet.r160_in1k", pretrained=False, stride=8)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
SEX = torch.tensor([1.0, -1.0, 0.0])


def test_auto_takes_the_accelerator_that_is_there() -> None:
    expected = torch.accelerator.current_accelerator(check_available=True)
    assert pick_device(Hardware()).type == (expected.type if expected else "cpu")


def test_the_cpu_is_taken_where_it_is_asked_for() -> None:
    assert pick_device(Hardware(accelerator="cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_missing_device_is_named_with_its_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boneage.networks.devices._AVAILABLE", {"cpu": lambda: True})
    with pytest.raises(UserError, match=f"no {name}; set it to auto"):
        pick_device(Hardware(accelerator=name))


@pytest.mark.parametrize("device", DEVICES)
def test_attention_and_ages_come_back_to_the_cpu(device: str) -> None:
    torch.manual_seed(0)
    own = Localizer(size=64, pool="avg", backbone=SMALL)
    localizer = LocalizerNetwork(own, BinRange(last=24), Localization()).eval()
    ages = AgeNetwork(
        Training(size=64, head_channels=8, backbone=SMALL),
        Model(name="m", regions=("whole",)),
        BinRange(last=24),
    ).eval()
    batch = torch.from_numpy(IMAGES)[:, None]
    known = [*attend(localizer, IMAGES, SEX), ask(ages, batch, SEX, Reading())]
    localizer.to(device)
    ages.to(device)
    found = [*attend(localizer, IMAGES, SEX), ask(ages, batch, SEX, Reading())]
    for here, there in zip(known, found, strict=True):
        torch.testing.assert_close(there, here, atol=1e-3, rtol=1e-3)  # and on the CPU
