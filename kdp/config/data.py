"""Samples to train on and to evaluate on. Their kinds are registered by the families."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from kdp.config import registry
from kdp.config.base import OpenSection, Section, extend


class SamplesConfig(Section):
    """Samples of one kind; each kind has its own fields."""

    retired_keys: ClassVar[frozenset[str]] = frozenset({"image_size"})

    kind: str = "embedded"
    """What the samples are and where they come from; `embedded` ships with kdp."""

    @model_validator(mode="before")
    @classmethod
    def _drop_keys_of_other_kinds(cls, value: Any) -> Any:
        """With `data.kind=embedded`, the folders that the file gives for its own kind have no use.

        Records of older versions hold the keys of all kinds.
        """
        if not isinstance(value, dict) or "kind" not in value:
            return value
        foreign = {key for kind in registry.data_kinds().values() for key in kind.model_fields}
        foreign -= set(cls.model_fields)
        return {key: given for key, given in value.items() if key not in foreign}


class EmbeddedSamples(SamplesConfig):
    """A few samples that come with kdp, or are generated: enough to try a command."""


class EvaluationConfig(SamplesConfig):
    """Evaluation samples; the fields of their kind stand beside this one."""

    at_end: bool = False
    """Measure them at the end of a training alone, on its best network: a test set, which must not
    choose it."""


class DataConfig(SamplesConfig, OpenSection):
    """Training samples; the fields of their kind stand beside these."""

    augment: bool = True
    """Change samples at random."""
    workers: int = Field(0, ge=0, le=1024)
    """Number of data-loading processes; 0 loads samples in the main process."""


def samples_schema() -> Any:
    """One of the registered kinds, selected by `kind`, with the keys of evaluation sets."""
    kinds = registry.data_kinds().items()
    return _union({kind: (samples, EvaluationConfig) for kind, samples in kinds})


def data_schema() -> Any:
    """The same with the keys of training samples and all registered options."""
    options = registry.data_options()
    kinds = registry.data_kinds().items()
    return _union({kind: (samples, DataConfig, *options) for kind, samples in kinds})


def _union(kinds: dict[str, tuple[type[Section], ...]]) -> Any:
    members: Iterable[Any] = (
        Annotated[_of_kind(kind, bases), Tag(kind)] for kind, bases in kinds.items()
    )
    return Annotated[reduce(or_, members), Discriminator(_kind)]


def _of_kind(kind: str, bases: tuple[type[Section], ...]) -> Any:
    name = f"{kind}_{'data' if DataConfig in bases else 'samples'}"
    literal = Literal[kind]  # type: ignore[valid-type]
    field = Field(kind, description=SamplesConfig.model_fields["kind"].description)
    return extend(name, bases, bases[0].__doc__, kind=(literal, field))


def _kind(value: Any) -> Any:
    if isinstance(value, dict):
        return str(value.get("kind", "embedded"))
    return getattr(value, "kind", "embedded")


registry.register_data_kind("embedded", EmbeddedSamples)
