"""Read: what every model, and every ensemble of them, says of the images that did not train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from boneage.config import Config, Model
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.networks.bins import make_bins
from boneage.networks.devices import pick_device
from boneage.networks.reading import Calibration, ask_all
from boneage.networks.regressor import AgeNetwork, mix
from boneage.networks.storage import load_network, save_network
from boneage.run_folder import Stage, read_arrays, write_arrays, write_json
from boneage.stages.crop import model_images

_OUTPUTS = "outputs.npz"


def load_model(config: Config, model: Model, weights: Path) -> AgeNetwork:
    """A trained age network, on the device asked for."""
    network = AgeNetwork(config.training, model, config.bins, len(config.table.covariates))
    load_network(network, weights)
    return network.to(pick_device(config.hardware))


def read_model(
    config: Config, model: Model, stage: Stage, trained: Stage, prepared: Stage, cropped: Stage
) -> None:
    """Let one model tell all images that did not train, with their sex and with the wrong one."""
    samples = Samples.load(prepared.folder)
    images = model_images(config, model, samples, told_rows(samples), prepared, cropped)
    network = load_model(config, model, trained / "network.safetensors")
    outputs = ask_all(network, images, config.reading)
    images.sex = -images.sex
    write_ages(config, stage, samples, outputs, ask_all(network, images, config.reading))


def read_ensemble(
    config: Config, stage: Stage, members: Mapping[str, Stage], prepared: Stage
) -> None:
    """Mix what the models of an ensemble said."""
    said = [read_arrays(member / _OUTPUTS) for member in members.values()]
    outputs, other = (
        mix([torch.from_numpy(arrays[name]) for arrays in said]) for name in ("outputs", "other")
    )
    write_ages(config, stage, Samples.load(prepared.folder), outputs, other)


def told_rows(samples: Samples) -> np.ndarray:
    """The rows of all images that did not train."""
    return np.flatnonzero(samples.parts != splits.TRAIN)


def write_ages(
    config: Config, stage: Stage, samples: Samples, outputs: Tensor, other: Tensor
) -> None:
    """Write `outputs.npz`, and the ages made of them: `predictions.npz`, `calibration.safetensors`.

    Ages are corrected as the validation images ask for it.
    """
    rows = told_rows(samples)
    chose = torch.from_numpy(samples.parts[rows] == splits.VALIDATION)
    months = torch.from_numpy(samples.months[rows])
    calibration = Calibration(config.reading, make_bins(config.bins))
    calibration.fit(outputs[chose], months[chose])
    ages = calibration(outputs)
    error = (ages.months[chose] - months[chose]).abs().mean()
    save_network(calibration, stage / "calibration.safetensors")
    write_json(stage / "reading.json", {"validation_mae": float(error)})
    write_arrays(stage / _OUTPUTS, {"outputs": outputs.numpy(), "other": other.numpy()})
    predictions = {
        "rows": rows,
        **{name: column.numpy() for name, column in ages._asdict().items()},
        "other_sex_months": calibration(other).months.numpy(),
    }
    write_arrays(stage / "predictions.npz", predictions)
