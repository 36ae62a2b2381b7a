"""What two processes train together and one trains alone, for comparison: a program of its own.

No batch normalization, whose statistics are those of each process's share; but changes of the
images, and steps that follow several batches.
"""

from __future__ import annotations

import sys
from pathlib import Path

import lightning
import numpy as np
import torch

from boneage.config import (
    Augmentation,
    Backbone,
    BinRange,
    Hardware,
    Localization,
    Localizer,
    Schedule,
)
from boneage.data.batches import RegionDataset, loader
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.training import LocalizerTask, fit
from boneage.processes import joined, leads, own_share

BINS = BinRange(first=1, last=24)
LOCALIZER = Localizer(
    size=64,
    pool="avg",
    # Cut at a stride that leaves later layers without use.
    backbone=Backbone(name="test_convnext.r160_in1k", pretrained=False, stride=8),
    label_width=5,
    schedule=Schedule(epochs=(2,), batch_size=4, accumulate=2),
    augmentation=Augmentation(rotation=10, shift=0.05, scale=0.1, flip=True, intensity=0.1),
)


def dataset(count: int, seed: int) -> RegionDataset:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 64, 64), dtype=np.uint8)
    months = random.uniform(1, 24, count)
    return RegionDataset([images], months, months > 12, np.arange(count))


def network() -> LocalizerNetwork:
    return LocalizerNetwork(LOCALIZER, BINS, Localization())


def train(folder: Path, validation: int) -> None:
    """Train; write the weights, and the error over so many validation images."""
    lightning.seed_everything(0, verbose=False)
    own, share = network(), own_share()
    torch.nn.init.normal_(own.head.weight, std=0.1)
    batches = loader(dataset(20, 1), 4, shuffle=True, share=share)
    error = fit(
        LocalizerTask(own, LOCALIZER, len(batches)),
        batches,
        loader(dataset(validation, 2), 4, shuffle=False, share=share),
        folder,
        Hardware(accelerator="cpu", devices=share.count),
        keep="last",
    )
    if leads():
        torch.save({"weights": own.state_dict(), "error": error}, folder / "trained.pt")


if __name__ == "__main__":
    with joined(torch.device("cpu")):
        for count in map(int, sys.argv[2:]):
            train(Path(sys.argv[1]) / str(count), count)
