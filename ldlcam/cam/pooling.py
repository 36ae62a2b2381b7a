"""Global pooling of feature maps, and the account of what each position gave to the pooled value.

A pool is a module from features (N, C, h, w) to (N, C). Those here also share each pooled value
out among the positions, so that the parts sum to it: `evidence` weighs the parts with one filter
per image and sums over the channels.
"""

import math

import torch
from torch import Tensor, nn

from ldlcam._check import check_choice, check_positive, check_tensor
from ldlcam._precision import upcast, without_autocast


class AveragePool(nn.Module):
    """The mean over all positions (GAP)."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) to (N, C)."""
        return features.mean((2, 3))

    def evidence(self, features: Tensor, filters: Tensor) -> Tensor:
        """Features (N, C, h, w) and filters (N, C) to (N, h, w): every position counts alike."""
        return weighted_sum(features, filters) / (features.shape[2] * features.shape[3])


class MaxPool(nn.Module):
    """The maximum over all positions (GMP)."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) to (N, C)."""
        return features.amax((2, 3))

    def evidence(self, features: Tensor, filters: Tensor) -> Tensor:
        """Features (N, C, h, w) and filters (N, C) to (N, h, w): the first maximum counts."""
        maxima, positions = features.flatten(2).max(2)
        parts = filters.to(maxima.dtype) * maxima
        height, width = features.shape[2:]
        empty = parts.new_zeros(parts.shape[0], height * width)
        return empty.scatter_add(1, positions, parts).view(-1, height, width)


class LogSumExpPool(nn.Module):
    """A smooth maximum: `log(mean(exp(r f))) / r` over all positions (LSE).

    It tends to the mean as r falls to 0 and to the maximum as r grows. Half precision is computed
    in float32.

    Args:
        sharpness: r, above 0, per unit of the features.

    Raises:
        TypeError: If the sharpness is not a number; in use, if the features are not a floating
            tensor.
        ValueError: If the sharpness is not above 0; in use, if the features are not (N, C, h, w).

    Example:
        >>> import torch
        >>> from ldlcam import LogSumExpPool
        >>> features = torch.tensor([[[[0.0, 1.0, 2.0]]]])
        >>> LogSumExpPool(sharpness=10.0)(features)
        tensor([[1.8901]])

    References:
        Pinheiro and Collobert, "From image-level to pixel-level labeling with convolutional
        networks", CVPR 2015.
    """

    def __init__(self, sharpness: float = 5.0) -> None:
        super().__init__()
        check_positive("sharpness", sharpness)
        self.sharpness = sharpness

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"sharpness={self.sharpness}"

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) to (N, C)."""
        check_tensor("features", features, "N C h w", "floating")
        values = upcast(features).flatten(2) * self.sharpness
        pooled = (values.logsumexp(2) - math.log(values.shape[2])) / self.sharpness
        return pooled.to(features.dtype)

    def evidence(self, features: Tensor, filters: Tensor) -> Tensor:
        """Features (N, C, h, w), filters (N, C) to (N, h, w): shared out as softmax(r f) is."""
        values = upcast(features)
        shares = (values.flatten(2) * self.sharpness).softmax(2)
        parts = weighted_sum(shares.view_as(features), filters * self.forward(values))
        return parts.to(features.dtype)


class GeneralizedMeanPool(nn.Module):
    """The generalized mean `mean(f ** p) ** (1 / p)` over all positions, of f above 0 (GeM).

    p = 1 is the mean, and large p tends to the maximum. Features below `floor` count as `floor`,
    which suits features that follow a ReLU. Half precision is computed in float32.

    Args:
        power: p, above 0, at the start.
        learnable: Whether p is a parameter.
        floor: The least feature value, above 0.

    Attributes:
        power: p, a scalar parameter, or a buffer where it is not learned.

    Raises:
        TypeError: If the power or the floor is not a number; in use, if the features are not a
            floating tensor.
        ValueError: If the power or the floor is not above 0; in use, if the features are not
            (N, C, h, w).

    Example:
        >>> import torch
        >>> from ldlcam import GeneralizedMeanPool
        >>> features = torch.tensor([[[[1.0, 2.0, 3.0]]]])
        >>> GeneralizedMeanPool(power=2.0, learnable=False)(features)
        tensor([[2.1602]])

    References:
        Radenovic, Tolias and Chum, "Fine-tuning CNN image retrieval with no human annotation",
        TPAMI 2019.
    """

    power: Tensor

    def __init__(self, power: float = 3.0, *, learnable: bool = True, floor: float = 1e-6) -> None:
        super().__init__()
        check_positive("power", power)
        check_positive("floor", floor)
        self.floor = floor
        self._start = float(power)
        if learnable:
            self.power = nn.Parameter(torch.tensor(self._start))
        else:
            self.register_buffer("power", torch.tensor(self._start))

    def reset_parameters(self) -> None:
        """Set p back to what it was at the start."""
        with torch.no_grad():
            self.power.fill_(self._start)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        learnable = isinstance(self.power, nn.Parameter)
        power = "..." if self.power.is_meta else f"{self.power.item():g}"
        return f"power={power}, learnable={learnable}, floor={self.floor:g}"

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) to (N, C)."""
        check_tensor("features", features, "N C h w", "floating")
        pooled, _ = self._pooled(features)
        return pooled.to(features.dtype)

    def evidence(self, features: Tensor, filters: Tensor) -> Tensor:
        """Features (N, C, h, w) and filters (N, C) to (N, h, w): shared out as f ** p is."""
        pooled, powers = self._pooled(features)
        parts = weighted_sum(powers.view_as(features), filters * pooled / powers.sum(2))
        return parts.to(features.dtype)

    def _pooled(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled values (N, C), and the powers they are the means of, (N, C, h w).

        The powers are of the features over their maximum: they do not overflow, and their sum is
        at least 1.
        """
        values = upcast(features).flatten(2).clamp(min=self.floor)
        peaks = values.detach().amax(2)
        power = self.power.to(values.dtype)
        powers = (values / peaks.unsqueeze(2)) ** power
        return peaks * powers.mean(2) ** (1 / power), powers


POOLS: dict[str, type[nn.Module]] = {
    "avg": AveragePool,
    "max": MaxPool,
    "lse": LogSumExpPool,
    "gem": GeneralizedMeanPool,
}


def make_pool(name: str) -> nn.Module:
    """The pool of a name, with its defaults.

    Raises:
        ValueError: If the name is unknown.
    """
    check_choice("pool", name, tuple(POOLS))
    return POOLS[name]()


def weighted_sum(features: Tensor, filters: Tensor) -> Tensor:
    """One map per image, (N, h, w): its features (N, C, h, w) weighted by its filter (N, C)."""
    with without_autocast(features.device.type):
        maps = torch.bmm(filters.to(features.dtype).unsqueeze(1), features.flatten(2))
    return maps.view(features.shape[0], *features.shape[2:])
