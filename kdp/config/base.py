"""What every section of a configuration is made of."""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from kdp.log import log

MAX_COUNT = 1_000_000_000
"""Of steps, runs, units: more are a mistake, and numbers of samples stay machine integers."""
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Samples = Annotated[int, Field(ge=1, le=65_536)]
"""Of a batch, which is in memory at once."""
Side = Annotated[int, Field(ge=1, le=8192)]
"""Of an image, in pixels."""
Decay = Annotated[float, Field(ge=0, lt=1)]
"""Of a running average: the weight of its old value."""


class Section(BaseModel):
    """Typed, closed (an unknown key is an error) and immutable.

    The sentence below a field is its description in `docs/config.md` and in the JSON schema.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    renamed_keys: ClassVar[dict[str, str]] = {}
    """New names of keys by their old ones, which work for one more version."""
    retired_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys that older versions had, and their records still have; they are ignored."""

    @model_validator(mode="before")
    @classmethod
    def _check_values(cls, data: Any) -> Any:
        """Of options of any type, and of paths, which the system refuses with another error."""
        for key, value in data.items() if isinstance(data, dict) else ():
            if reason := _unusable(value):
                raise ValueError(f"{key}: {reason}")
        return data

    @model_validator(mode="before")
    @classmethod
    def _accept_old_keys(cls, data: Any) -> Any:
        """Files, overrides and records may use old names; of two spellings the later one wins."""
        if not isinstance(data, dict):
            return data
        for key in cls.retired_keys & data.keys():
            _warn_retired(key)
        for old in cls.renamed_keys.keys() & data.keys():
            _warn_renamed(old, cls.renamed_keys[old])
        kept = {key: value for key, value in data.items() if key not in cls.retired_keys}
        return {cls.renamed_keys.get(key, key): value for key, value in kept.items()}


def _unusable(value: Any) -> str | None:
    """Why a value, or one inside it, cannot be used whatever the key is; None if it can."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return next(filter(None, map(_unusable, value)), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a finite number"
    return "it has a null character" if isinstance(value, str) and "\0" in value else None


S = TypeVar("S", bound=Section)


class OpenSection(Section):
    """A section that families add keys to; see `kdp.config.registry`."""

    def options(self, section: type[S]) -> S:
        """The keys that a family registered for this section."""
        return self if isinstance(self, section) else section()


def extend(name: str, bases: tuple[type[S], ...], doc: str | None, **fields: Any) -> type[S]:
    """A section that is made at run time.

    Args:
        name: of the class.
        bases: where two have a field of one name, that of the first one is used.
        doc: its docstring.
        fields: type and default of those that it adds or changes.
    """
    # It has no source text: looking for sentences in it takes long and finds none.
    without_source = {"use_attribute_docstrings": False}
    return create_model(name, __base__=bases, __doc__=doc, __cls_kwargs__=without_source, **fields)


@cache
def _warn_renamed(old: str, new: str) -> None:
    """Warn once: a configuration is read several times."""
    log.warning(f"the key {old} is now called {new}; the old name works until version 0.3")


@cache
def _warn_retired(key: str) -> None:
    log.warning(f"the key {key} of an older version is ignored")
