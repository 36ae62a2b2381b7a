"""The losses that are trained, the published schedule, and checkpoints that survive a full disk."""

import csv
import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from boneage.config import (
    Backbone,
    BinRange,
    Hardware,
    Localization,
    Localizer,
    Model,
    Schedule,
    Training,
    load_config,
)
from boneage.data.batches import Batch, RegionDataset, loader
from boneage.errors import UserError
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.regressor import AgeNetwork
from boneage.networks.training import AgeTask, LocalizerTask, _WholeCheckpoints, fit

TINY = Backbone(name="test_resnet.r160_in1k", pretrained=False, stride=8)
BINS = BinRange(first=1, last=24, step=1)


def _batch(count: int = 4, size: int = 64) -> Batch:
    torch.manual_seed(1)
    months = torch.tensor([3.0, 9.5, 15.0, 24.0])[:count]
    return Batch(torch.rand(count, 1, size, size), months, torch.ones(count), torch.empty(count, 0))


def _batches() -> DataLoader[Batch]:
    months, images = np.arange(1.0, 9.0), np.zeros((8, 64, 64), np.uint8)
    return loader(
        RegionDataset([images], months, months > 4, np.arange(8)), batch_size=4, shuffle=False
    )


def _localizer(loss: str) -> LocalizerTask:
    torch.manual_seed(0)
    own = Localizer(size=64, pool="avg", loss=loss, backbone=TINY, label_width=5)
    network = LocalizerNetwork(own, BINS, Localization())
    nn.init.normal_(network.head.weight)
    nn.init.normal_(network.sex.weight)
    task = LocalizerTask(network.eval(), own, batches=10)
    task.log = lambda *_, **__: None
    return task


@pytest.mark.parametrize("loss", ["kl", "l1"])
def test_attention_loss_by_hand(loss: str) -> None:
    task, batch = _localizer(loss), _batch()
    scores = task.network(batch.images, batch.sex).detach().double().numpy()
    ages = np.arange(1, 25)
    labels = np.clip(1 - np.abs(ages - batch.months.numpy()[:, None]) / 5, 0, None)
    if loss == "kl":
        labels /= labels.sum(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        present = labels > 0
        terms = np.zeros_like(labels)
        terms[present] = labels[present] * (np.log(labels[present]) - logs[present])
        expected = terms.sum(axis=1).mean()
    else:
        expected = 10 * np.abs(scores - labels).mean()
    assert task.training_step(batch, 0).item() == pytest.approx(expected, rel=1e-4)


def test_age_losses_by_hand() -> None:
    batch = _batch()
    for loss in ("l1", "ldl"):
        torch.manual_seed(0)
        config = Training(size=64, head_channels=8, backbone=TINY, sigma=3, weight=2)
        network = AgeNetwork(config, Model(name="m", regions=("whole",), loss=loss), BINS)
        task = AgeTask(network.eval(), config, loss, batches=10)
        task.log = lambda *_, **__: None
        output = network(batch.images, batch.sex).detach().double().numpy()
        months = batch.months.double().numpy()
        if loss == "l1":
            expected = np.abs(output - months).mean()
        else:
            ages = np.arange(1, 25)
            chances = np.exp(output) / np.exp(output).sum(axis=1, keepdims=True)
            labels = np.exp(-((ages - months[:, None]) ** 2) / 18)
            labels /= labels.sum(axis=1, keepdims=True)
            kl = (labels * np.log(labels / chances)).sum(axis=1)
            expected = (np.abs(chances @ ages - months) + 2 * kl).mean()
        assert task.training_step(batch, 0).item() == pytest.approx(expected, rel=1e-4)


def test_published_schedule_has_its_rates() -> None:
    own = load_config("paper").localization.hand
    task = _localizer("kl")
    task.schedule, task.steps_per_epoch = own.schedule, 3
    optimizers, (plan,) = task.configure_optimizers()
    rates = []
    for _ in range(70 * 3):
        rates.append(optimizers[0].param_groups[0]["lr"])
        optimizers[0].step()
        plan["scheduler"].step()
    np.testing.assert_allclose(rates, [3e-4] * 150 + [1e-4] * 60)


def test_one_cycle_ends_with_the_last_batch() -> None:
    task = _localizer("kl")
    task.schedule = Schedule(epochs=(4,), learning_rate=(1e-3,))
    optimizers, (plan,) = task.configure_optimizers()
    rates = []
    for _ in range(40):
        rates.append(optimizers[0].param_groups[0]["lr"])
        optimizers[0].step()
        plan["scheduler"].step() if len(rates) < 40 else None
    assert max(rates) == pytest.approx(1e-3)
    assert rates[-1] < 1e-6


def _trained(folder: Path, accumulate: int = 1) -> None:
    """Two epochs of four batches, the second of them no better: all images are alike."""
    months, images = np.arange(1.0, 9.0), np.zeros((8, 64, 64), np.uint8)
    dataset = RegionDataset([images], months, months > 4, np.arange(8))
    batches = loader(dataset, batch_size=2, shuffle=False)
    schedule = Schedule(epochs=(2,), accumulate=accumulate)
    own = Localizer(size=64, pool="avg", backbone=TINY, schedule=schedule)
    task = LocalizerTask(LocalizerNetwork(own, BINS, Localization()), own, batches=len(batches))
    fit(task, batches, batches, folder, Hardware(accelerator="cpu"), keep="last")


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 4), (2, 2), (3, 2), (9, 1)])
def test_steps_follow_several_batches(tmp_path: Path, accumulate: int, steps: int) -> None:
    _trained(tmp_path, accumulate)
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    assert (last["epoch"], last["global_step"]) == (1, 2 * steps)
    (plan,) = last["lr_schedulers"]
    assert plan["total_steps"] == 2 * steps


def test_what_was_learned_is_logged(tmp_path: Path) -> None:
    _trained(tmp_path)
    with open(tmp_path / "log" / "version_0" / "metrics.csv", newline="") as file:
        assert len([row for row in csv.DictReader(file) if row["val_mae"]]) >= 2
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert len(found.Scalars("val_mae")) >= 2


def test_full_disk_leaves_the_last_checkpoint_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    checkpoints = _WholeCheckpoints()
    checkpoints.save_checkpoint({"epoch": 1}, path)

    def full(self: Path, content: bytes) -> int:
        with open(self, "wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"last\.ckpt: cannot be written.*free some space"):
        checkpoints.save_checkpoint({"epoch": 2}, path)
    assert torch.load(path)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"not a checkpoint at all"])
def test_a_damaged_checkpoint_is_named_with_its_remedy(tmp_path: Path, content: bytes) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "last.ckpt").write_bytes(content)
    batches = _batches()
    with pytest.raises(UserError, match=r"last\.ckpt: the checkpoint is damaged .*; delete"):
        fit(_localizer("kl"), batches, batches, tmp_path, Hardware(accelerator="cpu"), keep="last")
    assert (checkpoints / "last.ckpt").read_bytes() == content


def test_a_network_that_diverges_is_not_kept(tmp_path: Path) -> None:
    batches = _batches()
    task = _localizer("kl")
    nn.init.constant_(task.network.train().head.weight, torch.nan)
    with pytest.raises(UserError, match=r"diverged in epoch 1 .*lower schedule\.learning_rate"):
        fit(task, batches, batches, tmp_path, Hardware(accelerator="cpu"), keep="last")
    assert list(tmp_path.rglob("*.ckpt")) == []
