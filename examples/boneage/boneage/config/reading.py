"""The section that says how trained networks are asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from boneage.config.section import Name, Section


class Reading(Section):
    """How trained networks are asked for ages, and how what they say is corrected.

    With `mirror` an image is also shown as its mirror image, and once more for each of `rotations`
    in degrees; the answers are mixed. `ensembles` mix the answers of several models, by name.
    `temperature`, `bias` (a straight line) and `conformal` (90% intervals that hold 90%) are fitted
    on the validation images.
    """

    mirror: bool = False
    rotations: tuple[Annotated[float, Field(gt=-180, lt=180)], ...] = ()
    temperature: bool = False
    bias: bool = False
    conformal: bool = False
    ensembles: dict[Name, Annotated[tuple[str, ...], Field(min_length=2)]] = Field({})
