"""Some losses train whole networks: at several rates from one seed, at the best from all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
from boneage.run_folder import Stage, read_json, write_json
from boneage.stages.crop import model_images
from boneage.stages.plan import RunStages, in_folder, make_key, plan_keyed
from boneage.stages.read import load_model
from boneage.stages.train import train


@dataclass(frozen=True)
class _Networks:
    """The networks of one loss at one rate, a model of the configuration for each seed."""

    config: Config
    stages: RunStages

    def tasks(self, models: tuple[Model, ...]) -> Iterator[Task]:
        """Train these."""
        for model in models:
            stage = self.stages.models[model.name]
            work = partial(
                train, self.config, model, stage, self.stages.prepared, self.stages.cropped
            )
            yield Task("losses", f"model {model.name}", stage, work)

    def first_error(self) -> float:
        """The validation MAE of the network from the first seed."""
        first = self.config.training.models[0]
        found = read_json(self.stages.models[first.name] / "training.json")
        return float(found["validation_mae"])


def whole_tasks(
    loss: str, chosen: Trial, config: Config, folder: Path, data_key: str
) -> Iterator[Task]:
    """Train a loss's networks on the whole images, then let all of them tell the ages.

    Each task is to be done before the next is asked for. Of the settings that heads have chosen,
    networks take the loss's own, not the learning rate.
    """
    rates = {
        rate: _networks(loss, rate, chosen, config, folder, data_key)
        for rate in config.comparison.rates
    }
    for networks in rates.values():
        yield from networks.tasks(networks.config.training.models[:1])
    errors = {rate: networks.first_error() for rate, networks in rates.items()}
    best = rates[min(errors, key=lambda rate: errors[rate])]
    yield from best.tasks(best.config.training.models[1:])
    keys = [stage.key for stage in best.stages.models.values()]
    told = Stage(folder / f"whole-{loss}", make_key(errors, keys))
    yield Task("losses", f"ages {loss}", told, partial(_tell, best, told, errors))


def _networks(
    loss: str, rate: float, chosen: Trial, config: Config, folder: Path, data_key: str
) -> _Networks:
    own = {name: value for name, value in chosen.items() if name in Training.model_fields}
    models = tuple(
        Model(name=f"{loss}-{rate:g}-{seed}", regions=("whole",), loss=loss, seed=seed)
        for seed in config.comparison.seeds
    )
    schedule = config.training.schedule.model_copy(update={"learning_rate": (rate,)})
    own |= {"schedule": schedule, "models": models}
    training = config.training.model_copy(update=own)
    config = config.model_copy(update={"training": training})
    return _Networks(config, plan_keyed(config, in_folder(folder), data_key))


def _tell(networks: _Networks, stage: Stage, errors: dict[float, float]) -> None:
    """Write `outputs.npz` of the validation and the test images, and the errors by rate."""
    config, stages = networks.config, networks.stages
    samples = Samples.load(stages.prepared.folder)
    outputs: dict[str, list[Tensor]] = {splits.VALIDATION: [], splits.TEST: []}
    for model in config.training.models:
        weights = stages.models[model.name] / "network.safetensors"
        network = load_model(config, model, weights)
        for part, seeds in outputs.items():
            rows = samples.rows(part)
            images = model_images(config, model, samples, rows, stages.prepared, stages.cropped)
            seeds.append(ask_all(network, images, config.reading))
    tried = [{"learning_rate": rate, "mae": error} for rate, error in errors.items()]
    write_json(stage / "rates.json", tried)
    save_outputs(stage, outputs)
