"""A classifier head that shows where its scores come from."""

import math
from collections.abc import Callable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldlcam._check import check_count, check_tensor
from ldlcam.cam.heatmaps import class_activation_map, class_weights
from ldlcam.cam.pooling import make_pool

# A pooling's name, or what turns features (N, C, h, w) into (N, C).
Pool = Literal["avg", "max", "lse", "gem"] | Callable[[Tensor], Tensor]


class CAMHead(nn.Module):
    """Global pooling and a linear classifier, with the class activation maps of its scores.

    The maps come in closed form from the features and the weights: no hooks, no backward pass.
    Two contracts tie them to the scores:

    - average pooling: the mean of a class's heat map, plus its bias, is its score.
    - any pooling with a name: the sum of a class's evidence map, plus its bias, is its score.

    Args:
        in_channels: Number of feature channels, C.
        num_classes: Number of classes, T.
        pool: `"avg"` (global average pooling), `"max"` (global max pooling), `"lse"`
            (`LogSumExpPool`) or `"gem"` (`GeneralizedMeanPool`); or a module or function from
            features (N, C, h, w) to (N, C).
        bias: Whether scores have a bias.

    Attributes:
        pool: The pooling: a module, or the function that was given.
        weight: (T, C) parameter, initialised as `nn.Linear` does.
        bias: (T,) parameter, or None.

    Raises:
        TypeError: If the pooling is neither a name nor callable.
        ValueError: If its name is unknown or a size is not positive.

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
        self, in_channels: int, num_classes: int, *, pool: Pool = "avg", bias: bool = True
    ) -> None:
        super().__init__()
        check_count("in_channels", in_channels)
        check_count("num_classes", num_classes)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.pool = make_pool(pool) if isinstance(pool, str) else pool
        if not callable(self.pool):
            raise TypeError(f"pool: expected a name or a callable, got {type(pool).__name__}")
        self.weight = nn.Parameter(torch.empty(num_classes, in_channels))
        self.bias = nn.Parameter(torch.empty(num_classes)) if bias else None
        self.reset_parameters()

    @classmethod
    def from_classifier(cls, classifier: nn.Module, *, pool: Pool = "avg") -> "CAMHead":
        """A head with the last layer of a trained network; it needs no more training.

        It stands for the end of a network that pools its last feature maps and applies one linear
        layer: its scores are that network's. The weights are shared, not copied, so that what
        either learns the other knows.

        Args:
            classifier: The linear layer, such as `model.fc` or `model.get_classifier()`; or a
                sequence of layers of which one is linear and the others change nothing in
                evaluation (dropout, flattening).
            pool: The pooling that the network was trained with, as for `CAMHead`.

        Returns:
            The head, with the classifier's mode, dtype and device.

        Raises:
            TypeError: If the classifier is anything else, such as a layer whose weight is computed
                from others (weight normalization, pruning).

        Example:
            >>> import torch
            >>> from ldlcam import CAMHead
            >>> classifier = torch.nn.Linear(8, 5)  # of a trained network
            >>> head = CAMHead.from_classifier(classifier)
            >>> features = torch.rand(1, 8, 4, 6)
            >>> torch.equal(head(features), classifier(features.mean((2, 3))))
            True
        """
        linear = _linear_layer(classifier)
        for name in ("weight", "bias"):
            if not isinstance(getattr(linear, name), nn.Parameter | None):
                raise TypeError(
                    f"classifier: expected a linear layer whose {name} is a parameter, got one "
                    "that computes it; remove its parametrization first"
                )
        bias = linear.bias is not None
        head = cls(linear.in_features, linear.out_features, pool=pool, bias=bias)
        head.weight = cast(nn.Parameter, linear.weight)
        head.bias = cast("nn.Parameter | None", linear.bias)
        # What is left to move is the pooling's own.
        return head.to(linear.weight.device, linear.weight.dtype).train(linear.training)

    def reset_parameters(self) -> None:
        """Draw fresh weights and bias, distributed as those of `nn.Linear`."""
        bound = 1 / math.sqrt(self.in_channels)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        bias = self.bias is not None
        function = "" if isinstance(self.pool, nn.Module) else f", pool={self.pool!r}"
        return f"{self.in_channels}, {self.num_classes}, bias={bias}{function}"

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
        return F.linear(self.pool(features), self.weight, self.bias)

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
        check_tensor("features", features, "N C h w", "floating", C=self.in_channels)
        classes = self._highest(features) if classes is None else classes
        return class_activation_map(features, self.weight, classes, window=window)

    def evidence_maps(
        self, features: Tensor, classes: Tensor | None = None, *, window: int = 0
    ) -> Tensor:
        """One map per image of what each position adds to the score; its sum + bias is the score.

        For average pooling this is the heat map divided by h * w. For max pooling each channel
        counts only where its maximum is (the first such position, where several are equal). For
        the smooth maxima between them, a channel's pooled value is shared out as its exponentials
        (`"lse"`) or powers (`"gem"`) are.

        Args:
            features: Feature maps, (N, C, h, w), floating.
            classes: The class of each image, (N,), integer; None takes the highest score's.
            window: How many neighbouring classes on either side are averaged with it; the sum is
                then the mean of their scores less their biases.

        Returns:
            Evidence maps, (N, h, w), in the unit of the scores (logits).

        Raises:
            TypeError: If an argument is not a tensor of the expected kind, or the pooling is not
                one that has a name and says nothing of evidence itself.
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
        evidence = getattr(self.pool, "evidence", None)
        if evidence is None:
            raise TypeError(
                "pool: expected a pooling that has `evidence`, as those with a name do, got "
                f"{self.pool!r}"
            )
        check_tensor("features", features, "N C h w", "floating", C=self.in_channels)
        classes = self._highest(features) if classes is None else classes
        check_tensor("classes", classes, "N", "integer", N=features.shape[0])
        maps: Tensor = evidence(features, class_weights(self.weight, classes, window))
        return maps

    def _highest(self, features: Tensor) -> Tensor:
        return self.forward(features).detach().argmax(1)


def _linear_layer(classifier: nn.Module) -> nn.Linear:
    layers = list(classifier) if isinstance(classifier, nn.Sequential) else [classifier]
    idle = (nn.Dropout, nn.Identity, nn.Flatten)
    layers = [layer for layer in layers if not isinstance(layer, idle)]
    if len(layers) == 1 and isinstance(layers[0], nn.Linear):
        return layers[0]
    raise TypeError(
        "classifier: expected one linear layer, such as model.fc or model.get_classifier(), "
        f"got {', '.join(type(layer).__name__ for layer in layers) or 'no layer'}"
    )
