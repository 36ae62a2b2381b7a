"""The whole configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from boneage.config.data import BinRange, PhantomData, Split, Table
from boneage.config.experiments import Experiments, LossComparison
from boneage.config.localization import REGIONS, Localization
from boneage.config.networks import Backbone, Hardware
from boneage.config.overrides import replaced
from boneage.config.reading import Reading
from boneage.config.section import Section, Seed
from boneage.config.training import SCALAR_LOSSES, Model, Training


class Config(Section):
    """Everything that decides what a run computes.

    Without a folder of `data` the phantom is drawn; without a phantom either, `data` must be given.
    """

    preset: str = "demo"
    data: Path | None = None
    phantom: PhantomData | None = PhantomData()
    table: Table = Table()
    split: Split = Split()
    bins: BinRange = BinRange()
    contrast: Literal["none", "percentile", "local"] = "percentile"
    localization: Localization = Localization()
    training: Training = Training()
    reading: Reading = Reading()
    comparison: LossComparison = LossComparison()
    experiments: Experiments = Experiments()
    hardware: Hardware = Hardware()
    bootstrap: int = Field(2000, ge=100)
    seed: Seed = 0

    @model_validator(mode="after")
    def _ensembles_have_members(self) -> Config:
        models = {model.name: model for model in self.training.models}
        for name, members in self.reading.ensembles.items():
            unknown = [member for member in members if member not in models]
            if name in models or unknown or len(set(members)) < len(members):
                raise ValueError(
                    f"reading.ensembles: {name} has a name of its own and mixes different ones of "
                    f"the models {', '.join(models)}"
                )
            if len({models[member].loss in SCALAR_LOSSES for member in members}) > 1:
                raise ValueError(f"reading.ensembles: {name} mixes single ages with distributions")
        return self

    @model_validator(mode="after")
    def _models_see_what_is_found(self) -> Config:
        plan = self.localization
        for model in self.training.models:
            unknown = [name for name in model.regions if name in REGIONS and name not in plan.found]
            if unknown:
                raise ValueError(
                    f"training.models: {model.name} sees {', '.join(unknown)}, but "
                    f"localization.regions is {plan.regions}"
                )
        return self

    @model_validator(mode="after")
    def _processes_share_batches(self) -> Config:
        count = self.hardware.devices * self.hardware.num_nodes
        plan = self.localization
        networks = {f"localization.{name}": plan.localizer(name) for name in plan.found}
        for name, own in (networks | {"training": self.training}).items():
            size = own.schedule.batch_size
            if count > 1 and (size % count or size < 2 * count):
                raise ValueError(
                    f"{name}.schedule.batch_size: {count} processes (hardware.devices x num_nodes) "
                    f"share a batch, two images each at least: expected a multiple of {count} from "
                    f"{2 * count} on, got {size}"
                )
        return self

    @property
    def drawn(self) -> PhantomData | None:
        """The phantom, where no radiographs are given."""
        return self.phantom if self.data is None else None

    @property
    def backbones(self) -> set[Backbone]:
        """Those of all networks of a run."""
        return {own.backbone for own in self.localization.localizers()} | {self.training.backbone}

    def members(self, name: str) -> tuple[Model, ...]:
        """The models whose answers are mixed under that name: an ensemble's, or one alone."""
        models = {model.name: model for model in self.training.models}
        return tuple(models[member] for member in self.reading.ensembles.get(name, (name,)))

    def for_model(self, model: Model) -> Config:
        """The same with the model's own seed, if it has one."""
        return self if model.seed is None else self.model_copy(update={"seed": model.seed})

    def changed(self, changes: Mapping[str, Any]) -> Config:
        """The same with other values, by their dotted names."""
        tree = self.model_dump()
        for name, value in changes.items():
            tree = replaced(tree, name.split("."), value, name, {})
        return Config.model_validate(tree)

    def digest(self, *names: str) -> str:
        """Fingerprint of the named sections."""
        tree = self.model_dump(mode="json")
        parts = {name: tree[name] for name in names}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
