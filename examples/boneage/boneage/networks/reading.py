"""How ages are read: several views and networks mixed, and what they say corrected."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from ldlcam import (
    Bins,
    ConformalIntervals,
    LabelDistribution,
    LinearBiasCorrection,
    TemperatureScaling,
)
from torch import Tensor, nn

from boneage.config import Reading
from boneage.data.batches import RegionDataset, loader, to_float, warp
from boneage.networks.regressor import AgeNetwork, as_distribution, mix, tell

_LEVEL = 0.9


class AgePrediction(NamedTuple):
    """Months (N,) and, where they are told, sd, 5% and 95% quantile and entropy (N,), else NaN."""

    months: Tensor
    sd: Tensor
    low: Tensor
    high: Tensor
    entropy: Tensor


@torch.no_grad()
def ask(network: AgeNetwork, images: Tensor, sex: Tensor, reading: Reading) -> Tensor:
    """What a network says of images, mixed over their views, on the CPU.

    Args:
        network: The network.
        images: Shape (N, R, S, S), uint8, on any device.
        sex: Shape (N,), +1, -1, or 0 for unknown.
        reading: Says which views there are.

    Returns:
        Logits (N, K) or, of a network that tells single ages, ages (N,) in months.
    """
    device = network.convolution.weight.device
    upright = to_float(images.to(device))
    views = [upright, *(_turned(upright, angle) for angle in reading.rotations)]
    if reading.mirror:
        views += [view.flip(-1) for view in views]
    return mix([network.answer(view, sex.to(device)) for view in views]).cpu()


def ask_all(network: AgeNetwork, dataset: RegionDataset, reading: Reading) -> Tensor:
    """What a network says of every row of a data set, in its order."""
    batches = loader(dataset, 64, shuffle=False)
    return torch.cat([ask(network, batch.images, batch.sex, reading) for batch in batches])


def _turned(images: Tensor, degrees: float) -> Tensor:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    affine = images.new_tensor([[cos, -sin, 0], [sin, cos, 0]])
    return warp(images, affine.expand(len(images), 2, 3))


class Calibration(nn.Module):
    """Corrects what networks say, as far as the configuration asks for it.

    Temperature first, which makes distributions as wide as they should be; then a straight line,
    which takes away what is told too high at one end of the range and too low at the other; then
    90% intervals that hold 90% of the validation images' ages. Before `fit` nothing is corrected.
    """

    def __init__(self, reading: Reading, bins: Bins):
        super().__init__()
        self.reading = reading
        self.bins = bins
        self.temperature = TemperatureScaling()
        self.bias = LinearBiasCorrection()
        self.quantiles = ConformalIntervals(_LEVEL)
        self.distances = ConformalIntervals(_LEVEL, score="absolute")

    def fit(self, outputs: Tensor, months: Tensor) -> Calibration:
        """Fit what the configuration asks for on validation images.

        Args:
            outputs: Logits (N, K) or ages (N,) in months.
            months: True ages (N,), in months.

        Returns:
            This module.
        """
        if self.reading.temperature and outputs.ndim == 2:
            self.temperature.fit(outputs, months, self.bins)
        if self.reading.bias:
            self.bias.fit(self.distribution(outputs).mean, months)
        if self.reading.conformal:
            self._intervals(outputs).fit(self.distribution(outputs), months)
        return self

    @torch.no_grad()
    def forward(self, outputs: Tensor) -> AgePrediction:
        """Logits (N, K), or ages (N,) in months -> corrected ages."""
        ages = self.distribution(outputs)
        unknown = torch.full_like(ages.mean, torch.nan)
        low, high = unknown, unknown
        if self.reading.conformal:
            # Unbounded where the validation images were too few.
            ends = self._intervals(outputs)(ages)
            low, high = (end.clamp(ages.bins.edges[0], ages.bins.edges[-1]) for end in ends)
        if outputs.ndim == 1:
            return AgePrediction(tell(self.bias(outputs), self.bins), unknown, low, high, unknown)
        if not self.reading.conformal:
            low, high = ages.interval(_LEVEL)
        return AgePrediction(ages.mean, ages.stddev, low, high, ages.entropy())

    def distribution(self, outputs: Tensor) -> LabelDistribution:
        """Logits (N, K), or ages (N,) in months -> corrected distributions (N,) over the ages."""
        if outputs.ndim == 1:
            return as_distribution(self.bias(outputs), self.bins)
        # Moving the bins moves the mean, and the intervals with it.
        bins = self.bins
        if self.reading.bias:
            bins = Bins.from_centers(self.bias(bins.centers), unit=bins.unit)
        return as_distribution(self.temperature(outputs), bins)

    def _intervals(self, outputs: Tensor) -> ConformalIntervals:
        return self.distances if outputs.ndim == 1 else self.quantiles
