"""The attention network: it learns ages so that its heat map shows where they are read."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from ldlcam import CAMHead, erase_features, trim_heatmaps
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
    """Backbone, pooling and one linear layer over the ages, with its class activation maps.

    Where Region 1 is erased from features, the network of both regions has a second such layer,
    which reads what the first one's map leaves.
    """

    def __init__(self, config: Localizer, bins: BinRange, plan: Localization, region: str = "hand"):
        super().__init__()
        self.bins = make_bins(bins)
        self.features = FeatureNetwork(config.backbone)
        self.head, self.sex = self._classifier(config, plan)
        self.second, self.second_sex = None, None
        if plan.erasing == "features" and region != "hand":
            self.second, self.second_sex = self._classifier(config, plan)
        self.erased_from = plan.erased_from
        self.shows_second = plan.second(region)
        self.softmax = config.loss == "kl"
        self.stride = config.backbone.stride
        self.heatmap = config.heatmap
        self.smoothing = config.smoothing
        self.window = plan.window
        self.mirror = plan.mirror

    def _classifier(
        self, config: Localizer, plan: Localization
    ) -> tuple[CAMHead, nn.Linear | None]:
        """A layer over the ages, and what the sex adds to their scores."""
        head = CAMHead(self.features.channels, len(self.bins), pool=config.pool)
        # All ages start equal: under max pooling random weights would begin far from uniform
        # scores, and what is random in them would stay in the heat map.
        nn.init.zeros_(head.weight)
        if not plan.sex:
            return head, None
        # The same bones are a girl's of fewer months than a boy's.
        sex = nn.Linear(1, len(self.bins), bias=False)
        nn.init.zeros_(sex.weight)
        return head, sex

    def forward(self, images: Tensor, sex: Tensor) -> Tensor:
        """Images (N, 1, S, S) in [0, 1], sex (N,): +1, -1, 0 unknown -> scores (N, K)."""
        return _scores(self.head, self.sex, self.features(images), sex)

    def learn(self, images: Tensor, sex: Tensor, classes: Tensor) -> list[Tensor]:
        """Scores (N, K) of each classifier, of images whose true ages are in `classes` (N,)."""
        features = self.features(images)
        scores = [_scores(self.head, self.sex, features, sex)]
        if self.second is not None:
            left = self._left(features, classes)
            scores.append(_scores(self.second, self.second_sex, left, sex))
        return scores

    @torch.no_grad()
    def attend(self, images: Tensor, sex: Tensor) -> Attention:
        """Images (N, 1, S, S) in [0, 1] and sex (N,) -> their heat maps and most likely ages."""
        views = [self.features(images)]
        if self.mirror:
            views.append(self.features(images.flip(3)).flip(3))
        head, classes = self.head, _most_likely(self.head, self.sex, views, sex)
        if self.shows_second and self.second is not None:
            views = [self._left(features, classes) for features in views]
            head, classes = self.second, _most_likely(self.second, self.second_sex, views, sex)
        head = self._shown(head)
        draw = head.heatmaps if self.heatmap == "activation" else head.evidence_maps
        maps = [draw(features, classes, window=self.window) for features in views]
        heatmaps = _smoothed(torch.stack(maps).mean(dim=0), self.smoothing)
        if (heatmaps.shape[-1] - 1) * self.stride + 1 == images.shape[-1]:
            heatmaps = trim_heatmaps(heatmaps, self.stride)
        return Attention(heatmaps, self.bins.centers[classes])

    def _left(self, features: Tensor, classes: Tensor) -> Tensor:
        """Features without those where the first classifier's map is hot."""
        maps = self._shown(self.head).heatmaps(features, classes, window=self.window)
        return erase_features(features, maps, self.erased_from)

    def _shown(self, head: CAMHead) -> CAMHead:
        """A classifier as its maps are drawn."""
        if not self.softmax:
            return head
        # A softmax does not see what all classes have in common, so neither may the map.
        shown = copy.deepcopy(head)
        shown.weight.data -= shown.weight.data.mean(dim=0)
        return shown


def _scores(head: CAMHead, sex_layer: nn.Linear | None, features: Tensor, sex: Tensor) -> Tensor:
    scores: Tensor = head(features)
    return scores if sex_layer is None else scores + sex_layer(sex[:, None])


def _most_likely(
    head: CAMHead, sex_layer: nn.Linear | None, views: list[Tensor], sex: Tensor
) -> Tensor:
    """The class (N,) of the highest score in the mean of some views."""
    scores = [_scores(head, sex_layer, features, sex) for features in views]
    return torch.stack(scores).mean(dim=0).argmax(dim=1)


def _smoothed(maps: Tensor, deviation: float) -> Tensor:
    """Maps (N, h, w) under a Gaussian of a standard deviation in cells; 0 leaves them alone."""
    if deviation == 0:
        return maps
    reach = math.ceil(3 * deviation)
    # Nothing lies beyond the border; the filter itself would mirror the map there.
    framed = F.pad(maps, (reach,) * 4)
    blurred: Tensor = gaussian_blur(framed[:, None], 2 * reach + 1, deviation)
    return blurred[:, 0, reach:-reach, reach:-reach]
