"""Some losses train a whole network each, from every seed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from torch import Tensor

from boneage.comparison.heads import Trial
from boneage.comparison.outputs import save_outputs
from boneage.config import Config, Model, Training
from boneage.data import splits
from boneage.data.samples import Samples
from boneage.networks.reading import ask_all
from boneage.pipeline import Task
from boneage.run_folder import Stage
from boneage.stages.crop import model_images
from boneage.stages.plan import RunStages, make_key, plan_stages
from boneage.stages.read import load_model
from boneage.stages.train import train


def whole_tasks(
    loss: str, rate: float, chosen: Trial, config: Config, folder: Path, data: Path
) -> Iterator[Task]:
    """Train a network on the whole images from every seed, then let all of them tell the ages.

    Of the settings that heads have chosen, networks take the loss's own, not the learning rate.
    """
    own = {name: value for name, value in chosen.items() if name in Training.model_fields}
    models = tuple(
        Model(name=f"{loss}-{seed}", regions=("whole",), loss=loss, seed=seed)
        for seed in config.comparison.seeds
    )
    schedule = config.training.schedule.model_copy(update={"learning_rate": (rate,)})
    own |= {"schedule": schedule, "models": models}
    training = config.training.model_copy(update=own)
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
    outputs: dict[str, list[Tensor]] = {splits.VALIDATION: [], splits.TEST: []}
    for model in config.training.models:
        weights = stages.models[model.name] / "network.safetensors"
        network = load_model(config, model, weights)
        for part, seeds in outputs.items():
            rows = samples.rows(part)
            images = model_images(config, model, samples, rows, stages.prepared, stages.cropped)
            seeds.append(ask_all(network, images, config.reading))
    save_outputs(stage, outputs)
