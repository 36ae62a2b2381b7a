"""What sections of networks share: backbones, and how they are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from boneage.config.section import Count, Positive, Section


class Schedule(Section):
    """How a network is trained.

    With `one_cycle` the rate rises to `learning_rate` and falls again over all epochs; otherwise
    it is constant in each phase, and `epochs` and `learning_rate` list the phases. Each step
    follows the gradient of `accumulate` batches, for batches that memory is too small for.
    """

    epochs: Annotated[tuple[Count, ...], Field(min_length=1)] = (5,)
    learning_rate: tuple[Positive, ...] = (1e-3,)
    one_cycle: bool = True
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = Field(0.05, ge=0)
    batch_size: int = Field(32, ge=2)
    accumulate: Count = 1

    @model_validator(mode="after")
    def _phases_match(self) -> Schedule:
        if len(self.epochs) != len(self.learning_rate):
            raise ValueError("epochs and learning_rate list the same phases: give as many of each")
        if self.one_cycle and len(self.epochs) != 1:
            raise ValueError("one_cycle has one phase: give one number of epochs and one rate")
        return self


class Augmentation(Section):
    """Random changes of the training images, drawn anew each time an image is seen."""

    rotation: float = Field(0, ge=0, le=180)
    shift: float = Field(0, ge=0, le=1)
    scale: float = Field(0, ge=0, lt=1)
    flip: bool = False
    intensity: float = Field(0, ge=0, lt=1)


class Backbone(Section):
    """A timm network; its feature map is taken at `stride` pixels a cell.

    The layers up to the feature map at `frozen` pixels a cell keep the weights they came with;
    their normalization follows the radiographs.
    """

    name: str = "tf_efficientnet_lite0"
    pretrained: bool = True
    stride: Literal[4, 8, 16, 32] = 32
    dilated: bool = False
    frozen: Literal[0, 2, 4, 8, 16] = 0

    @model_validator(mode="after")
    def _frozen_layers_know_something(self) -> Backbone:
        if self.frozen and not self.pretrained:
            raise ValueError("frozen layers would stay random: set pretrained, or frozen to 0")
        if self.frozen >= self.stride:
            raise ValueError("frozen is less than stride: the last layers have to learn")
        return self


class Hardware(Section):
    """What the networks train on, and the precision that they train in.

    `devices` of each of `num_nodes` machines train together, with a process each. A batch is that
    of all of them, so that they change the time that training takes, not what is trained.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: Count = 1
    num_nodes: Count = 1
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
