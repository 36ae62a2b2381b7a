"""Features of all images from one pretrained network that learns nothing here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F

from boneage.config import Config
from boneage.data import splits
from boneage.data.batches import RegionDataset, loader, signed_sex, to_float
from boneage.data.cache import View, write_views
from boneage.data.samples import Samples
from boneage.networks.backbones import FeatureNetwork
from boneage.networks.devices import pick_device
from boneage.networks.regressor import Standardize
from boneage.run_folder import Stage, read_array, write_array

_FILE = "features.npy"


class Features(NamedTuple):
    """Inputs (N, F) float32 of heads, standardized on those that learn, and ages (N,) in months."""

    inputs: Tensor
    months: Tensor


def extract(config: Config, stage: Stage, data: Path, prepared: Stage, console: Console) -> None:
    """Write `features.npy` (N, F) float32: each whole image's feature map, pooled to a grid."""
    plan = config.comparison
    samples = Samples.load(prepared.folder)
    paths = [data / path for path in samples.paths]
    images = View(stage / "images.npy", plan.size)
    device = pick_device(config.hardware)
    network = FeatureNetwork(plan.backbone).eval().to(device)
    parts = []
    with Progress(console=console) as progress, torch.no_grad():
        bar = progress.add_task("reading images", total=len(paths))
        write_views(paths, [images], config.contrast, lambda done: progress.advance(bar, done))
        pixels = read_array(images.path, mapped=True)
        dataset = RegionDataset([pixels], samples.months, samples.male, np.arange(len(samples)))
        bar = progress.add_task("extracting features", total=len(paths))
        for batch in loader(dataset, 64, shuffle=False):
            maps = network(to_float(batch.images.to(device)))
            parts.append(F.adaptive_avg_pool2d(maps, plan.grid).flatten(1).cpu())
            progress.advance(bar, len(batch.images))
    write_array(stage / _FILE, torch.cat(parts).numpy())


def load_features(stage: Stage, samples: Samples) -> dict[str, Features]:
    """Features, sex and covariates of the images that learn, choose and test, by their part."""
    features = torch.from_numpy(read_array(stage / _FILE))
    learning = samples.rows(splits.TRAIN)
    learn = features[torch.from_numpy(learning)]
    # A feature that never varies says nothing, whatever it is divided by.
    features = (features - learn.mean(0)) / learn.std(0).clamp(min=1e-6)
    standardize = Standardize(samples.covariates.shape[1])
    standardize.fit(samples.covariates[learning])
    covariates = standardize(torch.from_numpy(samples.covariates), len(samples))
    inputs = torch.cat([features, signed_sex(samples.male)[:, None], covariates], dim=1)
    months = torch.from_numpy(samples.months)
    rows = {
        part: torch.from_numpy(samples.rows(part))
        for part in (splits.TRAIN, splits.VALIDATION, splits.TEST)
    }
    return {part: Features(inputs[index], months[index]) for part, index in rows.items()}
