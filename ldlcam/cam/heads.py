"""A classifier head that shows where its scores come from."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldlcam._check import check_choice, check_tensor
from ldlcam.cam.heatmaps import class_activation_map, class_weights


class CAMHead(nn.Module):
    """Global pooling and a linear classifier, with the class activation maps of its scores.

    The maps come in closed form from the features and the weights: no hooks, no backward pass.
    Two contracts tie them to the scores:

    - `pool="avg"`: the mean of a class's heat map, plus its bias, is its score.
    - either pooling: the sum of a class's evidence map, plus its bias, is its score.

    Args:
        in_channels: Number of feature channels, C.
        num_classes: Number of classes, T.
        pool: `"avg"` (global average pooling) or `"max"` (global max pooling).
        bias: Whether scores have a bias.

    Attributes:
        weight: (T, C) parameter, initialised as `nn.Linear` does.
        bias: (T,) parameter, or None.

    Raises:
        ValueError: If the pooling is unknown or a size is not positive.

    Example:
        >>> import torch
        >>> from ldlcam import CAMHead
        >>> head = CAMHead(in_channels=8, num_classes=5)
        >>> features = torch.rand(2, 8, 4, 6)
        >>> head(features).shape
        torch.Size([2, 5])
        >>> heatmaps = head.heatmaps(features, torch.tensor([0, 3]))
        >>> score = heatmaps[1].mean() + head.bias[3]
        >>> torch.allclose(score, head(features)[1, 3], atol=1e-5)
        True

    References:
        Zhou et al., "Learning deep features for discriminative localization", CVPR 2016 (average
        pooling); Oquab et al., "Is object localization for free?", CVPR 2015 (max pooling).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        pool: Literal["avg", "max"] = "avg",
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_choice("pool", pool, ("avg", "max"))
        for name, value in (("in_channels", in_channels), ("num_classes", num_classes)):
            if value < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.pool = pool
        self.weight = nn.Parameter(torch.empty(num_classes, in_channels))
        self.bias = nn.Parameter(torch.empty(num_classes)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights and bias, distributed as those of `nn.Linear`."""
        bound = 1 / math.sqrt(self.in_channels)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        bias = self.bias is not None
        return f"{self.in_channels}, {self.num_classes}, pool={self.pool!r}, bias={bias}"

    def forward(self, features: Tensor) -> Tensor:
        """Class scores of each image.

        Args:
            features: Feature maps, (N, C, h, w), floating.

        Returns:
            Scores (logits), (N, T).

        Raises:
            TypeError: If the features are not a floating tensor.
            ValueError: If they are not (N, C, h, w) with the head's C.
        """
        check_tensor("features", features, "N C h w", "floating", C=self.in_channels)
        pooled = features.mean((2, 3)) if self.pool == "avg" else features.amax((2, 3))
        return F.linear(pooled, self.weight, self.bias)

    def heatmaps(
        self, features: Tensor, classes: Tensor | None = None, *, window: int = 0
    ) -> Tensor:
        """One class activation map per image, `sum_k weight[t, k] * features[k]`.

        For max pooling this is the map by definition, and it sums to nothing in particular;
        `evidence_maps` is the exact account of a score.

        Args:
            features: Feature maps, (N, C, h, w), floating.
            classes: The class of each image, (N,), integer; None takes the highest score's.
            window: How many neighbouring classes on either side are averaged with it; see
                `class_activation_map`.

        Returns:
            Heat maps, (N, h, w), in the unit of the scores (logits).

        Raises:
            TypeError: If an argument is not a tensor of the expected kind.
            ValueError: If the shapes do not fit together or the window is negative.
        """
        classes = self._highest(features) if classes is None else classes
        return class_activation_map(features, self.weight, classes, window=window)

    def evidence_maps(
        self, features: Tensor, classes: Tensor | None = None, *, window: int = 0
    ) -> Tensor:
        """One map per image of what each position adds to the score; its sum + bias is the score.

        For average pooling this is the heat map divided by h * w. For max pooling each channel
        counts only where its maximum is (the first such position, where several are equal).

        Args:
            features: Feature maps, (N, C, h, w), floating.
            classes: The class of each image, (N,), integer; None takes the highest score's.
            window: How many neighbouring classes on either side are averaged with it; the sum is
                then the mean of their scores less their biases.

        Returns:
            Evidence maps, (N, h, w), in the unit of the scores (logits).

        Raises:
            TypeError: If an argument is not a tensor of the expected kind.
            ValueError: If the shapes do not fit together or the window is negative.

        Example:
            >>> import torch
            >>> from ldlcam import CAMHead
            >>> head = CAMHead(in_channels=3, num_classes=4, pool="max")
            >>> features = torch.rand(1, 3, 5, 5)
            >>> evidence = head.evidence_maps(features, torch.tensor([2]))
            >>> score = evidence.sum() + head.bias[2]
            >>> torch.allclose(score, head(features)[0, 2], atol=1e-5)
            True
        """
        check_tensor("features", features, "N C h w", "floating", C=self.in_channels)
        classes = self._highest(features) if classes is None else classes
        height, width = features.shape[2:]
        if self.pool == "avg":
            return self.heatmaps(features, classes, window=window) / (height * width)
        check_tensor("classes", classes, "N", "integer", N=len(features))
        maxima, positions = features.flatten(2).max(2)
        evidence = class_weights(self.weight, classes, window).to(maxima.dtype) * maxima
        empty = evidence.new_zeros(len(features), height * width)
        return empty.scatter_add(1, positions, evidence).view(-1, height, width)

    def _highest(self, features: Tensor) -> Tensor:
        return self.forward(features).detach().argmax(1)
