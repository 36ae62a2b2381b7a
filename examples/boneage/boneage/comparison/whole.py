"""The best losses and L1 train a whole network each, from every seed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from boneage.comparison.heads import Trial
from boneage.comparison.outputs import save_outputs
from boneage.config import Config, Model, Training
from boneage.data import splits
from boneage.data.batches import RegionDataset, loader, to_float
from boneage.data.samples import Samples
from boneage.networks.devices import pick_device
from boneage.networks.regressor import AgeNetwork
from boneage.networks.storage import load_network
from boneage.pipeline import Task
from boneage.run_folder import Stage, read_array
from boneage.stages.plan import RunStages, make_key, plan_stages
from boneage.stages.prepare import whole_path
from boneage.stages.train import train


def whole_tasks(
    loss: str, chosen: Trial, config: Config, folder: Path, data: Path
) -> Iterator[Task]:
    """Train a network on the whole images from every seed, then let all of them tell the ages.

    Of the settings that heads have chosen, networks take the loss's own. Their rates are the
    configuration's.
    """
    own = {name: value for name, value in chosen.items() if name in Training.model_fields}
    models = tuple(
        Model(name=f"{loss}-{seed}", regions=("whole",), loss=loss, seed=seed)
        for seed in config.comparison.seeds
    )
    training = config.training.model_copy(update={**own, "models": models})
    config = config.model_copy(update={"training": training})
    stages = plan_stages(config, folder, data)
    for model in models:
        stage = stages.models[model.name]
        work = partial(train, config, model, stage, stages.prepared, stages.cropped)
        yield Task("losses", f"model {model.name}", stage, work)
    keys = [stage.key for stage in stages.models.values()]
    told = Stage(folder / f"whole-{loss}", make_key(keys))
    yield Task("losses", f"ages {loss}", told, partial(_tell, config, told, stages))


def _tell(config: Config, stage: Stage, stages: RunStages) -> None:
    """Write `outputs.npz` of the networks, for the validation and the test images."""
    samples = Samples.load(stages.prepared.folder)
    images = read_array(whole_path(stages.prepared, config.training.size), mapped=True)
    device = pick_device(config.hardware)
    outputs: dict[str, list[torch.Tensor]] = {splits.VALIDATION: [], splits.TEST: []}
    for model in config.training.models:
        network = AgeNetwork(config.training, model, config.bins)
        load_network(network, stages.models[model.name] / "network.safetensors")
        network.to(device)
        for part, seeds in outputs.items():
            dataset = RegionDataset([images], samples.months, samples.male, samples.rows(part))
            with torch.no_grad():
                told = [
                    network(to_float(batch.images.to(device)), batch.sex.to(device)).cpu()
                    for batch in loader(dataset, 64, shuffle=False)
                ]
            seeds.append(torch.cat(told))
    save_outputs(stage, outputs)
