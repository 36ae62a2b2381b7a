"""Train: one age network for each model of the configuration."""

from __future__ import annotations

import lightning
import numpy as np
import torch

from boneage.config import Config, Model
from boneage.data import splits
from boneage.data.batches import RegionDataset, loader
from boneage.data.samples import Samples
from boneage.networks.devices import pick_device
from boneage.networks.regressor import AgeNetwork, AgePrediction
from boneage.networks.storage import save_network
from boneage.networks.training import AgeTask, fit
from boneage.run_folder import Stage, atomic_path, read_array, write_json
from boneage.stages.crop import crop_path


def train(config: Config, model: Model, stage: Stage, prepared: Stage, cropped: Stage) -> None:
    """Train one model; write `network.safetensors`, `training.json` and `predictions.npz`.

    The epoch with the least validation error is kept. The predictions are those of all images
    that did not train, and their months were the sex told wrongly.
    """
    plan = config.training
    samples = Samples.load(prepared.folder)
    regions = [
        read_array(crop_path(cropped, prepared, region, config), mapped=True)
        for region in model.regions
    ]
    seed = config.for_model(model).seed
    lightning.seed_everything(seed, verbose=False)
    network = AgeNetwork(plan, model, config.bins)
    learn, choose = (
        RegionDataset(regions, samples.months, samples.male, samples.rows(part))
        for part in (splits.TRAIN, splits.VALIDATION)
    )
    batch = plan.schedule.batch_size
    batches = loader(learn, batch, shuffle=True)
    error = fit(
        AgeTask(network, plan, model.loss, len(batches), seed),
        batches,
        loader(choose, 2 * batch, shuffle=False),
        stage.folder,
        config.hardware,
        keep="best",
    )
    save_network(network.eval(), stage / "network.safetensors")
    write_json(stage / "training.json", {"validation_mae": error})
    network.to(pick_device(config.hardware))
    rows = np.flatnonzero(samples.parts != splits.TRAIN)
    dataset = RegionDataset(regions, samples.months, samples.male, rows)
    predictions = predict_ages(network, dataset)
    dataset.sex = -dataset.sex
    predictions["other_sex_months"] = predict_ages(network, dataset)["months"]
    with atomic_path(stage / "predictions.npz") as temporary:
        np.savez(temporary, rows=rows, **predictions)


def predict_ages(network: AgeNetwork, dataset: RegionDataset) -> dict[str, np.ndarray]:
    """Ages of every row of a data set, in its order: one array (N,) a field of AgePrediction."""
    parts = [
        network.predict(batch.images, batch.sex) for batch in loader(dataset, 64, shuffle=False)
    ]
    columns = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return dict(zip(AgePrediction._fields, columns, strict=True))
