"""Prediction for new images: the run's networks one after another, image to age and regions."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from ldlcam import Regions
from torch import Tensor

from boneage.config import found_before
from boneage.data.cache import render_each
from boneage.data.contrast import even_contrast
from boneage.data.dicom import Film
from boneage.data.images import FORMATS, image_files, image_name, read_film
from boneage.data.parallel import read_ahead
from boneage.data.patients import Known
from boneage.errors import UserError
from boneage.model_folder import TrainedModel
from boneage.networks.bins import make_bins
from boneage.networks.devices import pick_device
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.reading import Calibration, ask
from boneage.networks.regions import attend, erase_regions, exclude_regions, find_regions
from boneage.networks.regressor import mix
from boneage.networks.storage import load_network
from boneage.readings import Box, Reading, columns, table_row
from boneage.stages.read import load_model

_BATCH = 16
# What networks are told.
SIGNS = {True: 1.0, False: -1.0, None: 0.0}


@dataclass(frozen=True)
class Patient:
    """An image to be read, and what is known of the patient beside the image's file.

    Attributes:
        path: The image's file.
        male: The sex, if it is known; it counts more than what the file says.
        covariates: One each of the model's, NaN for unknown; by default all are.
    """

    path: Path
    male: bool | None = None
    covariates: tuple[float, ...] | None = None


class Predictor:
    """The networks of one trained model, from image files to readings, and to rows."""

    def __init__(self, model: TrainedModel):
        config, plan = model.config, model.config.localization
        self.config = config
        self.columns = columns(plan.found)
        self.thresholds = model.thresholds
        device = pick_device(config.hardware)
        self.localizers: dict[str, LocalizerNetwork] = {}
        for region in plan.found:
            localizer = LocalizerNetwork(plan.localizer(region), config.bins, plan, region)
            load_network(localizer, model.attention[region])
            self.localizers[region] = localizer.to(device)
        self.networks = {
            own: load_model(config, own, model.networks[own.name])
            for own in config.members(model.name)
        }
        self.calibration = Calibration(config.reading, make_bins(config.bins))
        load_network(self.calibration, model.calibration)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the weights and settings that decide what is read."""
        digest = hashlib.sha256(repr((self.config.model_dump(), self.thresholds)).encode())
        for module in (*self.localizers.values(), *self.networks.values(), self.calibration):
            for name, weight in module.state_dict().items():
                digest.update(name.encode())
                digest.update(weight.cpu().numpy().tobytes())
        return digest.hexdigest()

    def rows(self, patients: Iterable[Patient]) -> Iterator[dict[str, str]]:
        """One row of `columns` an image, in the given order; a bad image's row says its error."""
        # While the networks read a batch, the films of the next one are read from their files.
        with contextlib.closing(read_ahead(self._open, patients, _BATCH)) as opened:
            while batch := list(islice(opened, _BATCH)):
                yield from self._batch(batch)

    def _open(self, patient: Patient) -> tuple[Patient, Film | UserError]:
        try:
            return patient, self.film(patient)
        except UserError as error:
            return patient, error

    def _batch(self, batch: Sequence[tuple[Patient, Film | UserError]]) -> Iterator[dict[str, str]]:
        films = [(patient, film) for patient, film in batch if isinstance(film, Film)]
        readings = self.read(
            [image_name(patient.path) for patient, _ in films],
            [film for _, film in films],
            [patient.covariates for patient, _ in films],
        )
        rows = map(table_row, readings)
        for patient, film in batch:
            told = next(rows) if isinstance(film, Film) else {"error": str(film)}
            yield dict.fromkeys(self.columns, "") | {"path": str(patient.path)} | told

    def film(self, patient: Patient) -> Film:
        """An image as the networks see it, of even contrast; the patient's sex is the film's.

        Raises:
            UserError: If it cannot be read.
        """
        film = read_film(patient.path)
        male = film.male if patient.male is None else patient.male
        return film._replace(pixels=even_contrast(film.pixels, self.config.contrast), male=male)

    @torch.no_grad()
    def read(
        self,
        names: Sequence[str],
        films: Sequence[Film],
        covariates: Sequence[tuple[float, ...] | None] | None = None,
    ) -> list[Reading]:
        """Read the ages of films, each by the sex that it has.

        Args:
            names: The images' names, on which the grey depends that fills erased regions.
            films: The images, from `film`.
            covariates: What else is known of each: see `Patient`.

        Returns:
            A reading of each, in their order.
        """
        if not films:
            return []
        images = _Images([film.pixels for film in films], names)
        sex = torch.tensor([SIGNS[film.male] for film in films])
        unknown = (math.nan,) * len(self.config.table.covariates)
        known = torch.tensor([each or unknown for each in covariates or [None] * len(films)])
        regions = self._localize(images, sex)
        crops = self._crop(images, regions)
        outputs = []
        for model, network in self.networks.items():
            seen = torch.stack([crops[name] for name in model.regions], dim=1)
            outputs.append(ask(network, seen, sex, self.config.reading, known))
        mixed = mix(outputs)
        ages = self.calibration(mixed)
        # What tells single ages has no distribution.
        distributions = self.calibration.distribution(mixed) if mixed.ndim == 2 else None
        return [
            Reading(
                film=film,
                months=ages.months[i].item(),
                sd=ages.sd[i].item(),
                low=ages.low[i].item(),
                high=ages.high[i].item(),
                entropy=ages.entropy[i].item(),
                distribution=None if distributions is None else distributions[i],
                boxes={
                    name: _in_file(own.boxes[i].tolist(), film) for name, own in regions.items()
                },
                found={name: bool(own.valid[i]) for name, own in regions.items()},
                crops={name: crop[i].numpy() for name, crop in crops.items()},
            )
            for i, film in enumerate(films)
        ]

    def _localize(self, images: _Images, sex: Tensor) -> dict[str, Regions]:
        plan, shapes = self.config.localization, images.shapes
        regions: dict[str, Regions] = {}
        for region in plan.found:
            own = plan.localizer(region)
            small = images.whole(own.size)
            if erased := [regions[name] for name in plan.erased_for(region)]:
                small = erase_regions(small, erased, shapes, images.names)
            heatmaps = attend(self.localizers[region], small, sex).heatmaps
            before = [regions[name] for name in found_before(region)]
            heatmaps = exclude_regions(heatmaps, before, shapes)
            regions[region] = find_regions(heatmaps, shapes, own, plan, self.thresholds[region])
        return regions

    def _crop(self, images: _Images, regions: Mapping[str, Regions]) -> dict[str, Tensor]:
        """What the age networks see of images: (N, S, S) uint8 for each of their regions."""
        size = self.config.training.size
        crops: dict[str, Tensor] = {}
        for name in dict.fromkeys(name for model in self.networks for name in model.regions):
            cuts = images.cut(size, regions[name]) if name in regions else images.whole(size)
            if name == "erased":
                cuts = erase_regions(cuts, [regions["region1"]], images.shapes, images.names)
            crops[name] = torch.from_numpy(cuts)
        return crops


class _Images:
    """Images (H, W) that are read together, each in its own size, and what is cut out of them."""

    def __init__(self, pixels: Sequence[np.ndarray], names: Sequence[str]):
        self.names = names
        self.shapes = torch.tensor([image.shape for image in pixels])
        self._pixels = pixels
        self._whole: dict[int, np.ndarray] = {}

    def whole(self, size: int) -> np.ndarray:
        """All of each (N, S, S) uint8; several networks may see it at one size."""
        if size not in self._whole:
            self._whole[size] = render_each(self._pixels, [None] * len(self._pixels), size)
        return self._whole[size]

    def cut(self, size: int, found: Regions) -> np.ndarray:
        """A region of each (N, S, S) uint8."""
        return render_each(self._pixels, list(found.boxes.numpy()), size)


def _in_file(box: Sequence[float], film: Film) -> Box:
    """A box in pixels of the image as it lies in its file."""
    x1, y1, x2, y2 = box
    width = film.pixels.shape[1]
    return (width - x2, y1, width - x1, y2) if film.mirrored else (x1, y1, x2, y2)


def collect(
    paths: Sequence[Path], male: bool | None, known: Mapping[str, Known] | None = None
) -> list[Patient]:
    """The images named, and those of the folders named, sorted within each folder.

    Args:
        paths: Images, and folders of images.
        male: The sex of those of which what is known says nothing.
        known: What is known of images by their names without suffix.

    Raises:
        UserError: If a folder has no images, or what is known is of none of the images.
    """
    patients = []
    for path in paths:
        found = [path]
        if path.is_dir():
            found = image_files(path)
            if not found:
                raise UserError(f"{path}: no images ({FORMATS}) in it or below it")
        for image in found:
            own = (known or {}).get(image_name(image), Known(None, None))
            patients.append(Patient(image, male if own.male is None else own.male, own.covariates))
    if known and patients and not any(image_name(one.path) in known for one in patients):
        raise UserError(
            f"the table of patients: none of its ids ({next(iter(known))}, ...) is the name of an "
            f"image ({image_name(patients[0].path)}, ...)"
        )
    return patients
