"""The attention network: it learns ages so that its heat map shows where they are read."""

from __future__ import annotations

from typing import NamedTuple

import torch
from ldlcam import Bins, CAMHead, class_activation_map
from torch import Tensor, nn

from boneage.config import BinRange, Localization, Localizer
from boneage.networks.backbones import FeatureNetwork


class Attention(NamedTuple):
    """Heat maps (N, h, w) of the most likely age, and the ages that were most likely (N,)."""

    heatmaps: Tensor
    months: Tensor


class LocalizerNetwork(nn.Module):
    """Backbone, pooling and one linear layer over the ages, with its class activation maps."""

    def __init__(self, config: Localizer, bins: BinRange, plan: Localization):
        super().__init__()
        self.bins = Bins(bins.first, bins.last, bins.step, unit="months")
        self.features = FeatureNetwork(config.backbone)
        self.head = CAMHead(self.features.channels, len(self.bins), pool=config.pool)
        # All ages start equal: under max pooling random weights would begin far from uniform
        # scores, and what is random in them would stay in the heat map.
        nn.init.zeros_(self.head.weight)
        # The same bones are a girl's of fewer months than a boy's.
        self.sex = nn.Linear(1, len(self.bins), bias=False) if plan.sex else None
        if self.sex is not None:
            nn.init.zeros_(self.sex.weight)
        self.window = plan.window
        self.mirror = plan.mirror
        self.softmax = config.loss == "kl"

    def forward(self, images: Tensor, sex: Tensor) -> Tensor:
        """Images (N, 1, S, S) in [0, 1], sex (N,): +1, -1, 0 unknown -> scores (N, K)."""
        return self._scores(self.features(images), sex)

    @torch.no_grad()
    def attend(self, images: Tensor, sex: Tensor) -> Attention:
        """Images (N, 1, S, S) in [0, 1] and sex (N,) -> their heat maps and most likely ages."""
        features = self.features(images)
        scores = self._scores(features, sex)
        if self.mirror:
            mirrored = self.features(images.flip(3)).flip(3)
            scores = (scores + self._scores(mirrored, sex)) / 2
            features = (features + mirrored) / 2
        classes = scores.argmax(dim=1)
        weight = self.head.weight
        if self.softmax:
            # A softmax does not see what all classes have in common, so neither may the map.
            weight = weight - weight.mean(dim=0)
        maps = class_activation_map(features, weight, classes, window=self.window)
        return Attention(maps, self.bins.centers[classes])

    def _scores(self, features: Tensor, sex: Tensor) -> Tensor:
        scores: Tensor = self.head(features)
        return scores if self.sex is None else scores + self.sex(sex[:, None])
