"""The sections that say what is read: the radiographs, their table, and how they are divided."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from boneage.config.section import Column, Fraction, Positive, Section

SHORTEST = 128
"""The longer side of a drawn radiograph has at least so many pixels."""


class PhantomData(Section):
    """The embedded data set, drawn when no folder of radiographs is given."""

    count: int = Field(1200, ge=20)
    size: tuple[int, int] = (512, 384)
    bits: Literal[8, 16] = 8
    variant: Literal["default", "swapped", "no-age", "shortcut"] = "default"
    boxed: float = Field(0.25, ge=0, le=1)
    seed: int = Field(0, ge=0)

    @field_validator("size")
    @classmethod
    def _size_is_drawable(cls, size: tuple[int, int]) -> tuple[int, int]:
        if not (SHORTEST <= max(size) <= 3000 and min(size) >= 64):
            raise ValueError(
                f"the longer side has {SHORTEST} to 3000 pixels, the shorter at least 64"
            )
        return size


class Split(Section):
    """Shares of the images without boxes; the rest trains. Boxed images never train."""

    validation: Fraction = 0.1
    test: Fraction = 0.15
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _some_train(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave nothing to train on: give less than 1")
        return self


class BinRange(Section):
    """The ages that can be told, in months; both ends included."""

    first: float = 1
    last: float = 240
    step: Positive = 1

    @model_validator(mode="after")
    def _whole_steps(self) -> BinRange:
        steps = (self.last - self.first) / self.step
        if not (steps > 0.5 and math.isclose(steps, round(steps), rel_tol=1e-6)):
            raise ValueError("last is one or more whole steps above first")
        return self


class Table(Section):
    """How to read the data set's table of ages: as one of RSNA's, but for what is said here.

    `id`, `age` and `sex` name the columns that hold them. Ages in another unit than months are
    read as months, which all else is in. `covariates` are columns of numbers, which the age
    networks are told beside the sex; a cell of theirs may be empty. `patient` names the column that
    says who is shown: radiographs of one patient stay in one part of the split. `part` names the
    column of a split of one's own, train, validation or test.
    """

    id: Column | None = None
    age: Column | None = None
    sex: Column | None = None
    unit: Literal["days", "weeks", "months", "years"] | None = None
    covariates: tuple[Column, ...] = ()
    # Left out where they are not named: what was split before there was a choice stays done.
    patient: Column | None = Field(None, exclude_if=lambda column: column is None)
    part: Column | None = Field(None, exclude_if=lambda column: column is None)

    @model_validator(mode="after")
    def _columns_differ(self) -> Table:
        names = (self.id, self.age, self.sex, *self.covariates, self.patient, self.part)
        named = [name for name in names if name is not None]
        if len(set(named)) < len(named):
            raise ValueError(f"each is a column of its own, got {', '.join(named)}")
        return self
