"""Prediction for new images: the run's networks one after another, image to age and regions."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from ldlcam import Regions
from torch import Tensor

from boneage.config import REGIONS, Config, Localizer, Model
from boneage.data.cache import render
from boneage.data.contrast import even_contrast
from boneage.data.dicom import Film
from boneage.data.images import FORMATS, image_files, image_name, read_film
from boneage.errors import UserError
from boneage.model_folder import TrainedModel
from boneage.networks.bins import make_bins
from boneage.networks.devices import pick_device
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.reading import Calibration, ask
from boneage.networks.regions import attend, erase_region, exclude_region, find_regions
from boneage.networks.regressor import mix
from boneage.networks.storage import load_network
from boneage.run_folder import TEXT, atomic_path
from boneage.stages.read import load_model

_BATCH = 16
_SEX = {True: 1.0, False: -1.0, None: 0.0}
_BOX_COLUMNS = [f"{region}_{corner}" for region in REGIONS for corner in ("x1", "y1", "x2", "y2")]
COLUMNS = ("path", "sex", "months", "sd", "p5", "p95", "entropy", *_BOX_COLUMNS, "flags", "error")


@dataclass(frozen=True)
class Patient:
    """An image to be read, and the sex, where it is known better than from the image's file."""

    path: Path
    male: bool | None = None


class Predictor:
    """The networks of one trained model, as one step from image files to rows of a table."""

    def __init__(self, model: TrainedModel):
        config, plan = model.config, model.config.localization
        self.config = config
        self.thresholds = model.thresholds
        device = pick_device(config.hardware)
        self.localizers: dict[str, LocalizerNetwork] = {}
        for region in REGIONS:
            localizer = LocalizerNetwork(getattr(plan, region), config.bins, plan)
            load_network(localizer, model.attention[region])
            self.localizers[region] = localizer.to(device)
        self.networks = {
            own: load_model(config, own, model.networks[own.name])
            for own in config.members(model.name)
        }
        self.calibration = Calibration(config.reading, make_bins(config.bins))
        load_network(self.calibration, model.calibration)

    def rows(self, patients: Iterable[Patient]) -> Iterator[dict[str, str]]:
        """One row of `COLUMNS` an image, in the given order; a bad image's row says its error."""
        waiting = iter(patients)
        while batch := list(islice(waiting, _BATCH)):
            yield from self._batch(batch)

    def _batch(self, batch: Sequence[Patient]) -> Iterator[dict[str, str]]:
        films: dict[int, Film] = {}
        errors: dict[int, str] = {}
        for i, patient in enumerate(batch):
            try:
                film = read_film(patient.path)
            except UserError as error:
                errors[i] = str(error)
                continue
            male = film.male if patient.male is None else patient.male
            pixels = even_contrast(film.pixels, self.config.contrast)
            films[i] = film._replace(pixels=pixels, male=male)
        read = {}
        if films:
            names = [image_name(batch[i].path) for i in films]
            read = dict(zip(films, self._read(names, list(films.values())), strict=True))
        for i, patient in enumerate(batch):
            empty = dict.fromkeys(COLUMNS, "") | {"path": str(patient.path)}
            yield empty | (read[i] if i in read else {"error": errors[i]})

    def _read(self, names: Sequence[str], films: Sequence[Film]) -> Iterator[dict[str, str]]:
        images = [film.pixels for film in films]
        sex = torch.tensor([_SEX[film.male] for film in films])
        regions = self._localize(names, images, sex)
        outputs = [
            ask(network, _cut(images, regions, model, self.config), sex, self.config.reading)
            for model, network in self.networks.items()
        ]
        ages = self.calibration(mix(outputs))
        for i, film in enumerate(films):
            boxes = [_in_file(regions[name].boxes[i].tolist(), film) for name in REGIONS]
            flags = [f"no-{name}" for name in REGIONS if not regions[name].valid[i]]
            if film.male is None:
                flags.append("sex-unknown")
            if film.mirrored:
                flags.append("right-hand")
            # A model without a distribution knows no spread: those cells stay empty.
            figures = ["" if column[i].isnan() else f"{column[i]:.2f}" for column in ages]
            yield {
                "sex": {True: "M", False: "F", None: ""}[film.male],
                **dict(zip(("months", "sd", "p5", "p95", "entropy"), figures, strict=True)),
                **dict(zip(_BOX_COLUMNS, chain.from_iterable(boxes), strict=True)),
                "flags": " ".join(flags),
            }

    def _localize(
        self, names: Sequence[str], images: Sequence[np.ndarray], sex: Tensor
    ) -> dict[str, Regions]:
        plan = self.config.localization
        shapes = torch.tensor([image.shape for image in images])
        regions: dict[str, Regions] = {}
        for region in REGIONS:
            own: Localizer = getattr(plan, region)
            small = np.stack([render(image, [(own.size, None)])[0] for image in images])
            if region == "region2":
                small = erase_region(small, regions["region1"], shapes, names)
            heatmaps = attend(self.localizers[region], small, sex).heatmaps
            if region == "region2":
                heatmaps = exclude_region(heatmaps, regions["region1"], shapes)
            regions[region] = find_regions(heatmaps, shapes, own, plan, self.thresholds[region])
        return regions


def _in_file(box: Sequence[float], film: Film) -> list[str]:
    """A box's corners as text, in pixels of the image as it lies in its file."""
    x1, y1, x2, y2 = box
    if film.mirrored:
        width = film.pixels.shape[1]
        x1, x2 = width - x2, width - x1
    return [f"{corner:.1f}" for corner in (x1, y1, x2, y2)]


def collect(paths: Sequence[Path], male: bool | None) -> list[Patient]:
    """The images named, and those of the folders named, sorted within each folder."""
    patients = []
    for path in paths:
        found = [path]
        if path.is_dir():
            found = image_files(path)
            if not found:
                raise UserError(f"{path}: no images ({FORMATS}) in it or below it")
        patients += [Patient(image, male) for image in found]
    return patients


def write_predictions(
    predictor: Predictor,
    patients: Sequence[Patient],
    out: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Write one row an image to a CSV file, whole or not at all.

    Returns:
        How many images could not be read.
    """
    failed = 0
    with atomic_path(out) as temporary, open(temporary, "w", newline="", **TEXT) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in predictor.rows(patients):
            writer.writerow(row)
            failed += bool(row["error"])
            progress(1)
    return failed


def _cut(
    images: Sequence[np.ndarray], regions: dict[str, Regions], model: Model, config: Config
) -> Tensor:
    """What a model sees of images, (N, R, S, S) uint8: its regions, at the size that it learned."""
    size = config.training.size
    crops = [
        np.stack(render(image, [
            (size, None if name == "whole" else regions[name].boxes[i].numpy())
            for name in model.regions
        ]))
        for i, image in enumerate(images)
    ]  # fmt: skip
    return torch.from_numpy(np.stack(crops))
