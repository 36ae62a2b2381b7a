"""The section of the age networks."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from boneage.config.networks import Augmentation, Backbone, Schedule
from boneage.config.section import Count, Name, Section, Seed

Region = Literal["whole", "hand", "region1", "region2", "region3", "region4", "erased"]
Loss = Literal["l1", "l2", "cross-entropy", "kl", "mean-variance", "crps", "expectation", "ldl"]
LOSSES: tuple[str, ...] = get_args(Loss)
Fusion = Literal["channels", "streams"]
# Losses of a network that tells one number; the others are of one that tells a distribution.
SCALAR_LOSSES = ("l1", "l2")


class Model(Section):
    """One age model: the regions it sees and the loss it is trained with.

    `erased` is the whole image with Region 1 erased. Regions are the input channels of one
    backbone, which are three; or, with `fusion` of `streams`, each goes through that backbone by
    itself, and the head reads the features of all.

    A `seed` of its own trains it anew from another start; without, it has the run's.
    """

    name: Name
    regions: Annotated[tuple[Region, ...], Field(min_length=1)]
    fusion: Fusion = "channels"
    loss: Loss = "ldl"
    seed: Seed | None = None

    @model_validator(mode="after")
    def _channels_are_three(self) -> Model:
        if self.fusion == "channels" and len(self.regions) > 3:
            raise ValueError(
                f"{len(self.regions)} regions: a backbone has 3 input channels; give at most as "
                "many, or fusion: streams"
            )
        return self


class Training(Section):
    """What all age models of a run share.

    `sex_layers` are the widths of the layers through which sex and covariates go. `sigma` is that
    of the labels of `ldl` and `kl` in months, `weight` that of the divergence in `ldl` (by default
    sigma); `mean_weight` and `variance_weight` are those of `mean-variance`, by default the
    published ones, which are for years.
    """

    size: int = Field(112, ge=32)
    backbone: Backbone = Backbone()
    head_channels: int = Field(256, ge=1)
    sex: bool = True
    sex_layers: tuple[Count, ...] = (32,)
    sigma: float = Field(15, gt=0)
    weight: float | None = Field(None, ge=0)
    mean_weight: float = Field(0.2 / 144, ge=0)
    variance_weight: float = Field(0.05 / 144, ge=0)
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    models: Annotated[tuple[Model, ...], Field(min_length=1)] = (
        Model(name="O-L1", regions=("whole",), loss="l1"),
        Model(name="O", regions=("whole",)),
        Model(name="H+R1+R2", regions=("hand", "region1", "region2")),
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Training:
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"models: expected different names, got {names}")
        return self

    def sees(self, region: str) -> bool:
        """Whether any of the models sees that region."""
        return any(region in model.regions for model in self.models)
