"""What all sections of the configuration are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Fraction = Annotated[float, Field(gt=0, le=1)]
# It names a folder.
Name = Annotated[str, Field(pattern=r"^\w[\w+.-]*$")]
# As headers of tables are read: without blanks around.
Column = Annotated[str, StringConstraints(strip_whitespace=True)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A part of the configuration: unknown names are refused, values are checked."""

    # Defaults are validated too: a 50 that a float's default was written as is then 50.0, as it is
    # when read back from a file, and a stage's key does not depend on which of them it came from.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )
