"""The sections of what compares networks: the losses, and the paper's tables and figures."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from boneage.config.networks import Backbone
from boneage.config.section import Count, Fraction, Positive, Section, Seed
from boneage.config.training import Loss


class LossComparison(Section):
    """How `boneage losses` compares the losses.

    First on the features of one pretrained network that learns nothing: of images of `size`
    pixels, pooled to `grid` x `grid` cells. A small head is trained with every loss, at `trials`
    settings each. `sigmas` and `weights`, in multiples of sigma, are the grid on which the
    expectation loss is looked at closer. Then the losses in `whole`, L1 among them, train whole
    networks, as `training` says, but at the rate of `rates` that did best from the first seed.
    """

    size: int = Field(112, ge=32)
    backbone: Backbone = Backbone(stride=16)
    grid: Count = 4
    hidden: Count = 256
    dropout: float = Field(0.5, ge=0, lt=1)
    epochs: Count = 20
    batch_size: int = Field(128, ge=2)
    trials: Count = 16
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    sigmas: tuple[Positive, ...] = (4, 8, 15, 25)
    weights: tuple[Annotated[float, Field(ge=0)], ...] = (0.1, 0.3, 1, 3, 10, 100)
    whole: tuple[Loss, ...] = ()
    rates: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-3,)

    @model_validator(mode="after")
    def _others_stand_beside_l1(self) -> LossComparison:
        if self.whole and "l1" not in self.whole:
            raise ValueError("whole: name l1 too, since the others are compared with it")
        return self


class Experiments(Section):
    """What `boneage table` and `boneage figure` vary, each network trained from every seed.

    `backbones` are those of Table II, `sizes` those of Table IV, the first of which is also that of
    Tables II and III. `thresholds`, shares of a map's maximum, and `lambdas`, weights on the
    published scale, are those of Figure 5; `deltas` are standard deviations of the labels.
    """

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    backbones: Annotated[tuple[str, ...], Field(min_length=1)] = (
        *("vgg19", "inception_v3", "resnet50", "legacy_xception"),
    )
    sizes: Annotated[tuple[Annotated[int, Field(ge=32)], ...], Field(min_length=1)] = (
        *(224, 336, 448, 560, 720),
    )
    thresholds: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (
        *(0.051, 0.129, 0.145, 0.165, 0.18, 0.212),
    )
    lambdas: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        *(0, 0.001, 0.01, 0.05, 0.1, 0.5, 1, 5),
    )
    deltas: Annotated[tuple[Positive, ...], Field(min_length=1)] = (5, 10, 15, 20, 30)

    @field_validator("*")
    @classmethod
    def _each_once(cls, values: tuple[float | str, ...]) -> tuple[float | str, ...]:
        if len(set(values)) < len(values):
            raise ValueError(f"each value once, got {', '.join(map(str, values))}")
        return values
