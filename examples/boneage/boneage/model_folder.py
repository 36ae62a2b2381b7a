"""Trained models as folders of their own: weights as safetensors, settings as JSON, and a card."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from boneage.config import SECTIONS, Config
from boneage.errors import UserError
from boneage.pipeline import open_run
from boneage.report import wording
from boneage.report.environment import templates
from boneage.run_folder import atomic_path, read_json, write_json
from boneage.stages.evaluate import versions
from boneage.stages.plan import RunStages

_FORMAT = 1
_ABOUT, _CARD = "model.json", "README.md"


@dataclass(frozen=True)
class TrainedModel:
    """All that reading an age takes: settings, chosen thresholds, and where the weights lie.

    Attributes:
        name: The model's name, or an ensemble's.
        config: The settings.
        thresholds: Where each region's heat map is cut, as a fraction of its maximum.
        attention: Weights of the attention networks, by region.
        networks: Weights of the age networks, by the name of the model.
        calibration: What corrects the ages.
    """

    name: str
    config: Config
    thresholds: dict[str, float]
    attention: dict[str, Path]
    networks: dict[str, Path]
    calibration: Path

    def files(self) -> tuple[Path, ...]:
        """Where all weights lie, always in the same order."""
        return *self.attention.values(), *self.networks.values(), self.calibration


def open_model(path: Path, name: str | None = None) -> TrainedModel:
    """A trained model: that of a model folder, or one of a finished run.

    Args:
        path: The folder of either.
        name: Which model or ensemble of a run (default: the last one).

    Raises:
        UserError: If there is none, or it is not whole.
    """
    if (path / _ABOUT).exists():
        if name is not None:
            raise UserError(f"{path}: a model folder holds one model; leave --model out")
        return _from_folder(path)
    return from_run(*open_run(path), name)


def from_run(config: Config, stages: RunStages, name: str | None = None) -> TrainedModel:
    """One of a finished run's models or ensembles (default: the last one).

    Raises:
        UserError: If the run has none of that name, or is not done with its present settings.
    """
    name = list(stages.ages)[-1] if name is None else name
    if name not in stages.ages:
        raise UserError(f"model {name!r}: this run has the models {', '.join(stages.ages)}")
    models = {model.name: stages.models[model.name] for model in config.members(name)}
    for stage in (
        *stages.attention.values(),
        *stages.regions.values(),
        *models.values(),
        stages.ages[name],
    ):
        if not stage.done:
            raise UserError(
                f"{stage.folder}: not done with the run's present settings; "
                "run boneage evaluate first"
            )
    chosen = {region: read_json(own / "threshold.json") for region, own in stages.regions.items()}
    return TrainedModel(
        name=name,
        config=config,
        thresholds={region: float(own["threshold"]) for region, own in chosen.items()},
        attention={region: own / "network.safetensors" for region, own in stages.attention.items()},
        networks={own: stage / "network.safetensors" for own, stage in models.items()},
        calibration=stages.ages[name] / "calibration.safetensors",
    )


def export(run: Path, folder: Path, name: str | None = None) -> None:
    """Write a new model folder, which needs neither the run nor its data.

    Args:
        run: The folder of a finished run.
        folder: A new folder.
        name: Which model or ensemble of the run (default: the last one).

    Raises:
        UserError: If something lies there already, or the run is not finished.
    """
    model, metrics = from_run(*open_run(run), name), read_json(run / "metrics.json")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: holds something already; name a new folder")
    copy = _in_folder(folder, model.name, model.config, model.thresholds)
    for source, target in zip(model.files(), copy.files(), strict=True):
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    with atomic_path(folder / _CARD) as temporary:
        temporary.write_text(_card(model, metrics), encoding="utf-8", errors="replace")
    # Last: a folder without it is no model.
    write_json(
        folder / _ABOUT,
        {
            "format": _FORMAT,
            "name": model.name,
            "thresholds": model.thresholds,
            "configuration": model.config.model_dump(mode="json", exclude={"data"}),
            "versions": versions(),
        },
    )


def _from_folder(folder: Path) -> TrainedModel:
    about = read_json(folder / _ABOUT)
    try:
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {_FORMAT}")
        config = _without_downloads(Config.model_validate(about["configuration"]))
        found = config.localization.found
        thresholds = {region: float(about["thresholds"][region]) for region in found}
        return _in_folder(folder, str(about["name"]), config, thresholds)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder / _ABOUT}: not the settings of a model ({reason})") from None


def _in_folder(
    folder: Path, name: str, config: Config, thresholds: dict[str, float]
) -> TrainedModel:
    """A model with its weights where a model folder has them; they need not be there yet."""
    return TrainedModel(
        name=name,
        config=config,
        thresholds=thresholds,
        attention={region: folder / f"attention-{region}.safetensors" for region in thresholds},
        networks={
            own.name: folder / f"ages-{own.name}.safetensors" for own in config.members(name)
        },
        calibration=folder / "calibration.safetensors",
    )


def _without_downloads(config: Config) -> Config:
    """The settings of networks whose weights are here: none begins with weights from elsewhere."""
    tree = config.model_dump()
    plan = tree["localization"]
    for own in (*(plan[region] for region in SECTIONS), tree["training"]):
        own["backbone"] |= {"pretrained": False, "frozen": 0}
    return Config.model_validate(tree)


def _card(model: TrainedModel, metrics: dict[str, Any]) -> str:
    text = (
        templates(autoescape=False)
        .get_template("card.md")
        .render(
            model=model,
            members=model.config.members(model.name),
            metrics=metrics,
            ages=metrics["ages"]["models"][model.name],
            groups=wording.GROUPS,
        )
    )
    return f"{text}\n"
