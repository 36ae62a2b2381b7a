"""The predictor as one module of tensors, which can be written down as a graph."""

from __future__ import annotations

import copy
from typing import cast

import torch
from ldlcam import Regions
from torch import Tensor, nn

from boneage.config import SCALAR_LOSSES, Model, found_before
from boneage.data.batches import to_float
from boneage.data.cache import cut
from boneage.networks.localizer import LocalizerNetwork
from boneage.networks.reading import Calibration, ask
from boneage.networks.regions import erase_found, exclude_regions, find_regions
from boneage.networks.regressor import AgeNetwork, mix
from boneage.onnx.contrast import even_contrast
from boneage.predictor import Predictor


class PredictorGraph(nn.Module):
    """All that a predictor does with one image, from its grey values on.

    Args:
        predictor: The predictor, on the CPU. Its networks are shared, the attention networks
            copied.

    Attributes:
        covariates: Names of what the age networks are told beside the sex.
        outputs: Names of what `forward` gives.
        bins: The bins of the probabilities.
    """

    def __init__(self, predictor: Predictor):
        super().__init__()
        self.config = predictor.config
        self.covariates = predictor.config.table.covariates
        self.thresholds = predictor.thresholds
        self.localizers = nn.ModuleDict(
            {region: _centred(network) for region, network in predictor.localizers.items()}
        )
        self.models = tuple(predictor.networks)
        self.networks = nn.ModuleList(predictor.networks.values())
        self.calibration = predictor.calibration
        self.outputs: tuple[str, ...] = ("months", "interval", "boxes", "valid")
        if self.models[0].loss not in SCALAR_LOSSES:
            self.calibration = _settled(predictor.calibration)
            self.outputs = (*self.outputs, "probabilities")
        self.bins = self.calibration.bins

    @torch.no_grad()
    def forward(
        self, image: Tensor, sex: Tensor, seed: Tensor, covariates: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Read the age of one image.

        Args:
            image: Grey values (H, W), float32 in [0, 1] of the full scale, of a left hand.
            sex: Shape (), +1 male, -1 female, 0 unknown.
            seed: Shape (), int64: tells the grey that erased regions are filled with.
            covariates: Shape (C,), NaN for unknown; by default all are.

        Returns:
            Months (); ends of the 90% interval (2,), NaN where none is known; boxes (R, 4) in
            pixels of the image, all of it where no region was found; whether one was, (R,) bool;
            and of a model that tells distributions, probabilities (K,).
        """
        pixels, sex = even_contrast(image, self.config.contrast)[None, None], sex[None]
        regions = self._localize(pixels, sex, seed[None])
        known = None if covariates is None else covariates[None]
        outputs = []
        for model, network in zip(self.models, self.networks, strict=True):
            seen = self._cut(pixels, regions, seed[None], model)
            outputs.append(ask(cast(AgeNetwork, network), seen, sex, self.config.reading, known))
        mixed = mix(outputs)
        ages = self.calibration(mixed)
        said = (
            ages.months[0],
            torch.cat([ages.low, ages.high]),
            torch.cat([own.boxes for own in regions.values()]),
            torch.cat([own.valid for own in regions.values()]),
        )
        if "probabilities" not in self.outputs:
            return said
        return *said, self.calibration.distribution(mixed).probs[0]

    def _localize(self, pixels: Tensor, sex: Tensor, seeds: Tensor) -> dict[str, Regions]:
        plan, shapes = self.config.localization, _shapes(pixels)
        regions: dict[str, Regions] = {}
        for region in plan.found:
            own = plan.localizer(region)
            small = cut(pixels, _whole(pixels), own.size)
            if erased := [regions[name] for name in plan.erased_for(region)]:
                small = erase_found(small, erased, shapes, seeds)
            network = cast(LocalizerNetwork, self.localizers[region])
            heatmaps = network.attend(to_float(small), sex).heatmaps
            before = [regions[name] for name in found_before(region)]
            heatmaps = exclude_regions(heatmaps, before, shapes)
            regions[region] = find_regions(heatmaps, shapes, own, plan, self.thresholds[region])
        return regions

    def _cut(
        self, pixels: Tensor, regions: dict[str, Regions], seeds: Tensor, model: Model
    ) -> Tensor:
        crops = []
        for name in model.regions:
            box = regions[name].boxes if name in regions else _whole(pixels)
            crop = cut(pixels, box, self.config.training.size)
            if name == "erased":
                crop = erase_found(crop, [regions["region1"]], _shapes(pixels), seeds)
            crops.append(crop)
        return torch.cat(crops, 1)


def _shapes(pixels: Tensor) -> Tensor:
    """Height and width (1, 2) of an image."""
    return torch.stack([torch.full((1,), side) for side in pixels.shape[2:]], 1)


def _whole(pixels: Tensor) -> Tensor:
    """A box without area, which stands for the whole image."""
    return pixels.new_zeros(1, 4)


def _centred(network: LocalizerNetwork) -> LocalizerNetwork:
    """The same network with weights that say nothing common to all ages.

    It finds the same ages and draws the same maps: what a softmax does not see is taken away once,
    instead of for every image on a copy of the head, which a graph cannot make.
    """
    network = copy.deepcopy(network)
    if network.softmax:
        for head in filter(None, (network.head, network.second)):
            head.weight.data -= head.weight.data.mean(dim=0)
        network.softmax = False
    return network


def _settled(calibration: Calibration) -> Calibration:
    """The same corrections of distributions, with the straight line already in the bins.

    A graph can move ages, but bins are made from numbers that are known.
    """
    logits = torch.zeros(1, len(calibration.bins))
    settled = copy.deepcopy(calibration)
    settled.bins = calibration.distribution(logits).bins
    settled.reading = calibration.reading.model_copy(update={"bias": False})
    return settled
