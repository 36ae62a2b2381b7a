"""Trained networks as files: weights as safetensors, never pickles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model
from torch import nn

from boneage.errors import UserError
from boneage.networks.localizer import LocalizerNetwork
from boneage.run_folder import atomic_path


def save_network(network: nn.Module, path: Path) -> None:
    """Write the weights whole or not at all."""
    with atomic_path(path) as temporary:
        try:
            save_model(network, str(temporary))
        except SafetensorError as error:
            # The library's word for a full disk, among others.
            raise OSError(str(error)) from error


def load_network(network: nn.Module, path: Path) -> None:
    """Fill a network with the weights of a file, and set it to evaluation."""
    with _reading(path):
        load_model(network, str(path))
    network.eval()


def load_backbone(network: LocalizerNetwork, path: Path) -> None:
    """Fill a network's backbone with that of another network, whose weights the file holds."""
    with _reading(path):
        weights = load_file(path)
        prefix = "features."
        network.features.load_state_dict(
            {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    if not path.exists():
        raise UserError(f"{path}: no trained network there; run localize and train first")
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{path}: not the weights of this network ({error})") from None
