"""The age network: regions in, an age (or its distribution) out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from einops import rearrange
from ldlcam import Bins, ExpectationHead, LabelDistribution, expectation, two_hot_labels
from torch import Tensor, nn

from boneage.config import SCALAR_LOSSES, BinRange, Model, Training
from boneage.networks.backbones import FeatureNetwork
from boneage.networks.bins import make_bins


class AgeNetwork(nn.Module):
    """Backbone, convolution, max pooling, sex through small layers, and the ages.

    The head is the published one: a 3x3 convolution without activation and a 3x3 max pooling,
    flattened, beside 32 linear units for the sex, then one linear layer. That has one output a bin;
    with the losses `l1` and `l2` a single one, in units of `scale` months about `center`.
    Of a model with streams all but the linear layers see each region by itself.
    `covariates` numbers more join the sex, each in units of its deviation about its mean; one that
    is unknown counts as the mean.
    """

    def __init__(self, config: Training, model: Model, bins: BinRange, covariates: int = 0):
        super().__init__()
        self.bins = make_bins(bins)
        self.sex = config.sex
        self.features = FeatureNetwork(config.backbone)
        cells = self._cells(config.size)
        # Small inputs have small maps: then the convolution keeps the map's size.
        valid = cells >= 5
        self.convolution = nn.Conv2d(
            self.features.channels, config.head_channels, 3, padding=0 if valid else 1
        )
        cells = cells - 2 if valid else cells
        self.pool = nn.MaxPool2d(min(3, cells))
        width = config.head_channels * (cells // min(3, cells)) ** 2
        self.streams = model.fusion == "streams"
        if self.streams:
            width *= len(model.regions)
        self.standardize = Standardize(covariates)
        told = (1 if config.sex else 0) + covariates
        self.head = make_head(model.loss, width, told, self.bins, config.sex_layers)

    def forward(self, images: Tensor, sex: Tensor, covariates: Tensor | None = None) -> Tensor:
        """What is to be said of images: logits (N, K), or ages (N,).

        Args:
            images: Shape (N, R, S, S), in [0, 1].
            sex: Shape (N,): +1, -1, or 0 for unknown.
            covariates: Shape (N, C), NaN for unknown; by default all are.
        """
        return self._read(self._look(images), sex, covariates)

    def _look(self, images: Tensor) -> Tensor:
        """What is to be seen, whatever the sex."""
        streams = images.shape[1] if self.streams else 1
        each = rearrange(images, "n (s r) h w -> (n s) r h w", s=streams)
        seen: Tensor = self.pool(self.convolution(self.features(each)))
        return rearrange(seen, "(n s) c h w -> n (s c h w)", s=streams)

    def _read(self, seen: Tensor, sex: Tensor, covariates: Tensor | None) -> Tensor:
        told = self.standardize(covariates, len(seen)).to(seen.dtype)
        if self.sex:
            told = torch.cat([sex[:, None].to(seen.dtype), told], dim=1)
        output: Tensor = self.head(seen, told if told.shape[1] else None)
        return output

    def answer(self, images: Tensor, sex: Tensor, covariates: Tensor | None = None) -> Tensor:
        """As `forward`. An unknown sex was never trained: its answer is that of either, mixed."""
        seen = self._look(images)
        if not self.sex:
            return self._read(seen, sex, covariates)
        supposed = [torch.full_like(sex, sign) for sign in (1, -1)]
        male, female = (self._read(seen, each, covariates) for each in supposed)
        told = sex[:, None] if male.ndim == 2 else sex
        return torch.where(told == 0, mix([male, female]), torch.where(told > 0, male, female))

    def _cells(self, size: int) -> int:
        training = self.features.training
        with torch.no_grad():
            cells = self.features.eval()(torch.zeros(1, 3, size, size)).shape[-1]
        self.features.train(training)
        return int(cells)


class Standardize(nn.Module):
    """Covariates in units of their deviation about their mean, as `fit` has found them."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, count: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))

    def fit(self, covariates: np.ndarray) -> None:
        """Take mean and deviation of what is known in (N, C); a constant has a deviation of 1."""
        for column, values in enumerate(covariates.T.astype(np.float64)):
            values = values[np.isfinite(values)]
            if len(values):
                self.mean[column] = values.mean()
                self.deviation[column] = values.std() or 1.0

    def forward(self, covariates: Tensor | None, count: int) -> Tensor:
        """Covariates (count, C), NaN for unknown, or none of them -> the same in deviations."""
        if covariates is None:
            return self.mean.new_zeros(count, len(self.mean))
        return ((covariates - self.mean) / self.deviation).nan_to_num()


def make_head(
    loss: str, in_features: int, covariates: int, bins: Bins, layers: Sequence[int] = ()
) -> nn.Module:
    """The last layers of a network for that loss: one output a bin, or a single one.

    Covariates go through layers of the given widths first.
    """
    if loss in SCALAR_LOSSES:
        return ScalarHead(in_features, covariates, bins, layers)
    return ExpectationHead(in_features, bins, covariates=covariates, covariate_hidden=layers)


class ScalarHead(nn.Module):
    """Features and sex -> one age in months (N,), for regression with the L1 or the L2 loss."""

    def __init__(self, in_features: int, covariates: int, bins: Bins, layers: Sequence[int] = ()):
        super().__init__()
        widths = (covariates, *layers) if covariates else (0,)
        steps: list[nn.Module] = []
        for before, after in pairwise(widths):
            steps += [nn.ReLU()] if steps else []
            steps += [nn.Linear(before, after)]
        self.covariate_layers = nn.Sequential(*steps)
        self.linear = nn.Linear(in_features + widths[-1], 1)
        first, last = bins.centers[0].item(), bins.centers[-1].item()
        # Ages that fill the bins have about this mean and deviation: the output is standardized.
        self.center, self.scale = (first + last) / 2, (last - first) / 6

    def forward(self, features: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Features (N, F), covariates (N, C) -> months (N,)."""
        if covariates is not None:
            features = torch.cat([features, self.covariate_layers(covariates)], dim=1)
        months: Tensor = self.center + self.scale * self.linear(features)[:, 0]
        return months


def mix(outputs: Sequence[Tensor]) -> Tensor:
    """The mean of several distributions, logits (N, K), or of several ages (N,)."""
    if len(outputs) == 1:
        return outputs[0]
    stack = torch.stack(list(outputs))
    return stack.mean(0) if stack.ndim == 2 else stack.log_softmax(-1).logsumexp(0)


def as_distribution(output: Tensor, bins: Bins) -> LabelDistribution:
    """Logits (N, K), or ages (N,): a single age is a distribution that is all at that age."""
    if output.ndim == 2:
        return LabelDistribution(output.float(), bins)
    return LabelDistribution(two_hot_labels(output, bins).log(), bins)


def tell(output: Tensor, bins: Bins) -> Tensor:
    """Logits (N, K) -> expectations (N,) in months; plain ages (N,) are kept inside of the bins."""
    if output.ndim == 1:
        return output.clamp(bins.first, bins.last)
    return expectation(output.float(), bins)
