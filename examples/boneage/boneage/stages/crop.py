"""Crop: cut the found regions out of the original images, at the age networks' input size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from boneage.config import Config, Model
from boneage.data.batches import RegionDataset
from boneage.data.cache import View, write_views
from boneage.data.samples import Samples
from boneage.run_folder import Stage, read_array
from boneage.stages.localize import Found, write_erased
from boneage.stages.prepare import whole_path


def crop(
    config: Config,
    stage: Stage,
    data: Path,
    prepared: Stage,
    localized: dict[str, Stage],
    console: Console,
) -> None:
    """Write one `<region>.npy` (N, S, S) uint8 for each region, cut at full resolution.

    If a model asks for it, `erased.npy` too: the whole images without Region 1.
    """
    samples = Samples.load(prepared.folder)
    views = [
        View(
            crop_path(stage, prepared, region, config),
            config.training.size,
            Found.load(own).boxes,
        )
        for region, own in localized.items()
    ]
    with Progress(console=console) as progress:
        bar = progress.add_task("cropping originals", total=len(samples))
        paths = [data / path for path in samples.paths]
        write_views(paths, views, config.contrast, lambda done: progress.advance(bar, done))
    if config.training.sees("erased"):
        whole = read_array(crop_path(stage, prepared, "whole", config), mapped=True)
        path = crop_path(stage, prepared, "erased", config)
        write_erased(path, whole, [Found.load(localized["region1"])], samples)


def crop_path(stage: Stage, prepared: Stage, region: str, config: Config) -> Path:
    """Where a region's crops lie; the whole image's were made when the data were prepared."""
    if region == "whole":
        return whole_path(prepared, config.training.size)
    return stage / f"{region}.npy"


def model_images(
    config: Config,
    model: Model,
    samples: Samples,
    rows: np.ndarray,
    prepared: Stage,
    cropped: Stage,
) -> RegionDataset:
    """What a model sees and is told of some images."""
    regions = [
        read_array(crop_path(cropped, prepared, region, config), mapped=True)
        for region in model.regions
    ]
    return RegionDataset(regions, samples.months, samples.male, rows, samples.covariates)
