"""The attention network: it learns ages so that its heat map shows where they are read."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from ldlcam import CAMHead, trim_heatmaps
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from boneage.config import BinRange, Localization, Localizer
from boneage.networks.backbones import FeatureNetwork
from boneage.networks.bins import make_bins


class Attention(NamedTuple):
    """Heat maps (N, h, w) of the most likely age, and the ages that were most likely (N,)."""

    heatmaps: Tensor
    months: Tensor


class LocalizerNetwork(nn.Module):
    """Backbone, pooling and one linear layer over the ages, with its class activation maps."""

    def __init__(self, config: Localizer, bins: BinRange, plan: Localization):
        super().__init__()
        self.bins = make_bins(bins)
        self.features = FeatureNetwork(config.backbone)
        self.head = CAMHead(self.features.channels, len(self.bins), pool=config.pool)
        # All ages start equal: under max pooling random weights would begin far from uniform
        # scores, and what is random in them would stay in the heat map.
        nn.init.zeros_(self.head.weight)
        # The same bones are a girl's of fewer months than a boy's.
        self.sex = nn.Linear(1, len(self.bins), bias=False) if plan.sex else None
        if self.sex is not None:
            nn.init.zeros_(self.sex.weight)
        self.softmax = config.loss == "kl"
        self.stride = config.backbone.stride
        self.heatmap = config.heatmap
        self.smoothing = config.smoothing
        self.window = plan.window
        self.mirror = plan.mirror

    def forward(self, images: Tensor, sex: Tensor) -> Tensor:
        """Images (N, 1, S, S) in [0, 1], sex (N,): +1, -1, 0 unknown -> scores (N, K)."""
        return self._scores(self.features(images), sex)

    @torch.no_grad()
    def attend(self, images: Tensor, sex: Tensor) -> Attention:
        """Images (N, 1, S, S) in [0, 1] and sex (N,) -> their heat maps and most likely ages."""
        views = [self.features(images)]
        if self.mirror:
            views.append(self.features(images.flip(3)).flip(3))
        scores = torch.stack([self._scores(features, sex) for features in views]).mean(dim=0)
        classes = scores.argmax(dim=1)
        head = self.head
        if self.softmax:
            # A softmax does not see what all classes have in common, so neither may the map.
            head = copy.deepcopy(head)
            head.weight -= head.weight.mean(dim=0)
        draw = head.heatmaps if self.heatmap == "activation" else head.evidence_maps
        maps = [draw(features, classes, window=self.window) for features in views]
        heatmaps = _smoothed(torch.stack(maps).mean(dim=0), self.smoothing)
        if (heatmaps.shape[-1] - 1) * self.stride + 1 == images.shape[-1]:
            heatmaps = trim_heatmaps(heatmaps, self.stride)
        return Attention(heatmaps, self.bins.centers[classes])

    def _scores(self, features: Tensor, sex: Tensor) -> Tensor:
        scores: Tensor = self.head(features)
        return scores if self.sex is None else scores + self.sex(sex[:, None])


def _smoothed(maps: Tensor, deviation: float) -> Tensor:
    """Maps (N, h, w) under a Gaussian of a standard deviation in cells; 0 leaves them alone."""
    if deviation == 0:
        return maps
    reach = math.ceil(3 * deviation)
    # Nothing lies beyond the border; the filter itself would mirror the map there.
    framed = F.pad(maps, (reach,) * 4)
    return gaussian_blur(framed[:, None], 2 * reach + 1, deviation)[
        :, 0, reach:-reach, reach:-reach
    ]
