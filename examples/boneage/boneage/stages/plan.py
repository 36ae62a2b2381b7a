"""The plan of a run: its stages, their folders, and the keys of what they are computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage import phantom
from boneage.config import ASKED, REGIONS, SECTIONS, Config, Model, Table, found_before
from boneage.data.files import sampled
from boneage.data.images import image_files
from boneage.data.tables import find_table
from boneage.run_folder import Stage

_FOUND_BY = {name: name for name in REGIONS} | {"erased": "region1"}

Place = Callable[[str, str], Path]
"""The folder of a stage, by its title and its key."""


@dataclass(frozen=True)
class RunStages:
    """The stages of one run, each with its folder and the key of what it is computed from.

    `data_key` is that of the data set, as it is split and its contrast evened. `models` are the
    trained networks, `ages` what they say, and what ensembles of them say. `cut` are the regions
    that are cut out of the images.
    """

    data_key: str
    prepared: Stage
    attention: dict[str, Stage]
    regions: dict[str, Stage]
    cut: tuple[str, ...]
    cropped: Stage
    models: dict[str, Stage]
    ages: dict[str, Stage]
    warm_start: bool

    def handed_on(self, region: str) -> Stage | None:
        """The attention stage whose backbone this region's network begins with."""
        place = REGIONS.index(region)
        return self.attention[REGIONS[place - 1]] if self.warm_start and place else None

    def needed(self) -> tuple[str, ...]:
        """The regions that are found: those to be cut out, and those that these need before."""
        needed = {*self.cut, *(name for own in self.cut for name in found_before(own))}
        last = max((REGIONS.index(name) for name in needed), default=-1)
        return tuple(
            name
            for place, name in enumerate(REGIONS)
            if name in needed or (self.warm_start and place < last)
        )

    def every(self) -> dict[str, Stage]:
        """All stages by their titles."""
        trained = dict(self.attention)
        if trained["region2"] is trained["region1"]:  # one network finds both
            del trained["region2"]
        return {
            "prepare": self.prepared,
            **{f"attention {name}": stage for name, stage in trained.items()},
            **{f"regions {name}": stage for name, stage in self.regions.items()},
            "crop": self.cropped,
            **{f"model {name}": stage for name, stage in self.models.items()},
            **{f"ages {name}": stage for name, stage in self.ages.items()},
        }

    def seconds(self) -> dict[str, float]:
        """How long each stage took."""
        return {name: round(stage.seconds, 1) for name, stage in self.every().items()}

    def keys(self) -> dict[str, str]:
        """What each stage is computed from, by its title."""
        return {name: stage.key for name, stage in self.every().items()}


def plan_stages(config: Config, folder: Path, data: Path | None) -> RunStages:
    """The stages of a run and their keys: each from its configuration and the stages before it.

    Without the data set the keys fit no stage: good for reading a run, not for going on.
    """
    return plan_keyed(config, in_folder(folder), make_data_key(config, data))


def plan_keyed(
    config: Config, place: Place, data_key: str, cut: tuple[str, ...] | None = None
) -> RunStages:
    """`plan_stages` by a key of the data set that is known: it is not read for it again.

    Args:
        config: The configuration.
        place: The folder of a stage, by its title and its key.
        data_key: What `make_data_key` gave.
        cut: The regions that are found and cut out; by default all, as for a report.
    """
    plan = config.localization
    cut = plan.found if cut is None else cut

    def stage(title: str, *parts: Any) -> Stage:
        key = make_key(*parts)
        return Stage(place(title, key), key)

    # The stages after it each read one size: another size asks for these images, not for theirs.
    sizes = {region: plan.localizer(region).size for region in SECTIONS}, config.training.size
    prepared = stage("prepare", data_key, sizes)
    learned_with = _learned_with(config)
    attention: dict[str, Stage] = {}
    regions: dict[str, Stage] = {}
    for region in plan.found:
        own = plan.localizer(region)
        rule: Any = plan.window, plan.mirror, plan.component, plan.thresholds
        if plan.second(region):
            learned = attention["region1"]
            rule = *rule, "second", regions["region1"].key
        else:
            erased = "".join(regions[name].key for name in plan.erased_for(region))
            begun = [stage.key for stage in attention.values()] if plan.warm_start else []
            learning: Any = plan.sex, own.model_dump(exclude=set(ASKED))
            if plan.erasing == "features" and region != "hand":
                learning = *learning, plan.erased_from, plan.window
            learned = stage(f"attention-{region}", data_key, erased, begun, learning, learned_with)
        attention[region] = learned
        asked_for = own.model_dump(include=set(ASKED))
        regions[region] = stage(f"regions-{region}", learned.key, rule, asked_for)
    shared = config.training.model_dump(exclude={"models"})

    def model_stage(model: Model) -> Stage:
        seen = (
            data_key,
            *(regions[_FOUND_BY[name]].key for name in model.regions if name != "whole"),
        )
        own: Any = (
            model.model_dump(exclude={"seed", "fusion"}),
            _learned_with(config.for_model(model)),
        )
        if model.fusion != "channels":  # what was trained before there was a choice stays done
            own = *own, model.fusion
        return stage(f"model-{model.name}", seen, shared, *own)

    models = {model.name: model_stage(model) for model in config.training.models}
    asked = make_key(config.reading.model_dump(exclude={"ensembles"}))

    def ages_stage(name: str) -> Stage:
        keys = [models[member.name].key for member in config.members(name)]
        return stage(f"ages-{name}", asked, *keys)

    return RunStages(
        data_key=data_key,
        prepared=prepared,
        attention=attention,
        regions=regions,
        cut=cut,
        cropped=stage(
            "crop",
            (data_key, config.training.size, config.training.sees("erased")),
            {name: regions[name].key for name in cut},
        ),
        models=models,
        ages={name: ages_stage(name) for name in (*models, *config.reading.ensembles)},
        warm_start=plan.warm_start,
    )


def in_folder(folder: Path) -> Place:
    """Stages lie in a folder, each under its title: there is one of each."""
    return lambda title, key: folder / title


def _learned_with(config: Config) -> tuple[str, str]:
    return config.digest("bins", "seed"), config.hardware.precision


def make_data_key(config: Config, data: Path | None) -> str:
    """The key of the data set, as it is split and its contrast evened; all its files are read."""
    return make_key(
        config.digest("split", "bins", "contrast", "table"),
        _data_digest(data, config.table),
        (config.digest("phantom"), phantom.fingerprint()) if config.data is None else "",
    )


def _data_digest(data: Path | None, table: Table) -> str:
    """Fingerprint of a data set: its tables, and the names, sizes and samples of its images."""
    if data is None:
        return ""
    tables = (path for path in (find_table(data, table), data / "boxes.csv") if path.exists())
    images = [(str(path.relative_to(data)), sampled(path)) for path in image_files(data)]
    return make_key(*(hashlib.sha256(path.read_bytes()).hexdigest() for path in tables), images)


def make_key(*parts: Any) -> str:
    """The key of what is computed from these parts, each told apart by its `repr`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
