"""What every section of a configuration is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Decay = Annotated[float, Field(ge=0, lt=1)]
"""Of a running average: the weight of its old value."""


class Section(BaseModel):
    """Typed, closed (an unknown key is an error) and immutable.

    The sentence below a field is its description in `docs/config.md` and in the JSON schema.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
