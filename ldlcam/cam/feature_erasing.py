"""Two classifiers on one network's features: the second reads what the first leaves."""

from typing import NamedTuple

from torch import Tensor, nn

from ldlcam._check import check_count, check_fraction, check_same_length, check_tensor
from ldlcam.cam.heads import CAMHead, Pool
from ldlcam.cam.regions import threshold_mask


class Complementary(NamedTuple):
    """What two classifiers say of the same features: scores (N, T), or heat maps (N, h, w).

    Attributes:
        first: Of the first, which reads all features.
        second: Of the second, which does not see the first one's region.
    """

    first: Tensor
    second: Tensor


def erase_features(features: Tensor, heatmaps: Tensor, threshold: float | Tensor = 0.6) -> Tensor:
    """Features that are 0 in the cells where a heat map reaches a fraction of its maximum.

    Where the map shows no place (`valid_heatmaps`), nothing is erased. The region itself is not
    differentiable: gradients reach the features that are kept, and not the map.

    Args:
        features: Feature maps, (N, C, h, w), floating.
        heatmaps: Heat maps of the same cells, (N, h, w), floating.
        threshold: Fraction of the maximum, in (0, 1]: a float, or a tensor () or (N,).

    Returns:
        Feature maps, (N, C, h, w), new.

    Raises:
        TypeError: If an argument is not a tensor of the expected kind.
        ValueError: If the shapes do not fit together, or a float threshold is not in (0, 1].

    Example:
        >>> import torch
        >>> from ldlcam import erase_features
        >>> erase_features(torch.ones(1, 2, 1, 3), torch.tensor([[[0.2, 0.7, 1.0]]]))[0]
        tensor([[[1., 0., 0.]],
        <BLANKLINE>
                [[1., 0., 0.]]])

    References:
        Zhang et al., "Adversarial complementary learning for weakly supervised object
        localization", CVPR 2018 (ACoL). They scale a map from its minimum to its maximum before
        they compare; here the fraction is of the maximum alone, as everywhere in this library.
    """
    check_tensor("features", features, "N C h w", "floating")
    _, _, height, width = features.shape
    check_tensor("heatmaps", heatmaps, "N h w", "floating", h=height, w=width)
    check_same_length(features=features, heatmaps=heatmaps)
    region = threshold_mask(heatmaps.detach(), threshold)
    return features.masked_fill(region.unsqueeze(1), 0)


class FeatureErasing(nn.Module):
    """A head of two classifiers, of which the second has to find another region than the first.

    The first reads all features. Where its class activation map is hottest they are erased, and
    the second reads what is left. Trained together, from one training run, the first one's map
    shows the most telling region and the second one's the next.

    Args:
        in_channels: Number of feature channels, C.
        num_classes: Number of classes, T.
        pool: How both pool, as for `CAMHead`; a module is shared by both.
        threshold: The fraction of the first map's maximum from which on features are erased, in
            (0, 1].
        hidden: Channels of two 3 x 3 convolutions with ReLU that each classifier has of its own
            before it pools; None for none.

    Attributes:
        first: The first classifier's `CAMHead`.
        second: The second one's.

    Raises:
        TypeError: If a size or the threshold is not a number, or the pooling neither a name nor
            callable.
        ValueError: If a size is not positive, the threshold is not in (0, 1], or the pooling is
            unknown.

    Example:
        >>> import torch
        >>> from ldlcam import FeatureErasing
        >>> head = FeatureErasing(in_channels=8, num_classes=5)
        >>> features, targets = torch.rand(2, 8, 6, 6), torch.tensor([0, 3])
        >>> scores = head(features, targets)
        >>> loss = sum(torch.nn.functional.cross_entropy(s, targets) for s in scores)
        >>> head.heatmaps(features).second.shape
        torch.Size([2, 6, 6])

    References:
        Zhang et al., "Adversarial complementary learning for weakly supervised object
        localization", CVPR 2018 (ACoL): average pooling, a threshold of 0.6, and `hidden=1024`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        pool: Pool = "avg",
        threshold: float = 0.6,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        check_fraction("threshold", threshold)
        check_count("in_channels", in_channels)
        if hidden is not None:
            check_count("hidden", hidden)
        self.in_channels = in_channels
        self.threshold = threshold
        self.first_branch, self.second_branch = (_branch(in_channels, hidden) for _ in range(2))
        channels = in_channels if hidden is None else hidden
        self.first, self.second = (CAMHead(channels, num_classes, pool=pool) for _ in range(2))

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"threshold={self.threshold}"

    def forward(self, features: Tensor, classes: Tensor | None = None) -> Complementary:
        """Class scores of both classifiers, each to be trained with a loss of its own.

        Args:
            features: Feature maps, (N, C, h, w), floating.
            classes: The class by whose map features are erased, (N,), integer: the target in
                training; None takes the first classifier's highest score.

        Returns:
            Scores (logits), (N, T) each.

        Raises:
            TypeError: If an argument is not a tensor of the expected kind.
            ValueError: If the shapes do not fit together.
        """
        own, left = self._parts(features, classes)
        return Complementary(self.first(own), self.second(left))

    def heatmaps(
        self, features: Tensor, classes: Tensor | None = None, *, window: int = 0
    ) -> Complementary:
        """The class activation maps of both classifiers.

        Args:
            features: Feature maps, (N, C, h, w), floating.
            classes: The class of each image, (N,), integer; None takes each classifier's own
                highest score.
            window: How many neighbouring classes on either side are averaged with it; see
                `class_activation_map`.

        Returns:
            Heat maps, (N, h, w) each, in the unit of the scores (logits).

        Raises:
            TypeError: If an argument is not a tensor of the expected kind.
            ValueError: If the shapes do not fit together or the window is negative.
        """
        own, left = self._parts(features, classes)
        first = self.first.heatmaps(own, classes, window=window)
        return Complementary(first, self.second.heatmaps(left, classes, window=window))

    def _parts(self, features: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor]:
        """What either classifier pools: all that there is, and what the first leaves."""
        check_tensor("features", features, "N C h w", "floating", C=self.in_channels)
        own = self.first_branch(features)
        maps = self.first.heatmaps(own.detach(), classes)
        return own, self.second_branch(erase_features(features, maps, self.threshold))


def _branch(in_channels: int, hidden: int | None) -> nn.Module:
    if hidden is None:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 3, padding=1),
        nn.ReLU(),
    )
