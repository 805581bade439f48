"""Types of what files hold: compared once, where a file is read.

A file that another program or a person has edited may hold any value anywhere. Whoever reads it
after this check can use it without asking.

Files that hold tensors: see `kdp.tensor_contents`. This module imports no torch, so that a stage
can be refused before anything heavy is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from kdp.errors import KdpError
from kdp.files import read_regular


def check_types(path: Path, schema: Any, content: Any, what: str = "") -> None:
    """Compare the content of a file with a type.

    Args:
        path: of the file, for the message.
        schema: what the content has to be: a `Content` or another type.
        content: as it was read; it is not changed.
        what: part of the file that the content is.

    Raises:
        KdpError: it is something else; the message names the first place.
    """
    try:
        TypeAdapter(schema).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([part for part in (what, *map(str, first["loc"])) if part])
        reason = first["msg"].removeprefix("Value error, ")
        at = f" at {place}" if place else ""
        raise KdpError(f"{path} is damaged{at}: {reason}") from error


def read_json(path: Path, schema: Any) -> Any:
    """The content of a JSON file, compared with a type.

    Args:
        path: of the file.
        schema: what the content has to be, as for `check_types`.

    Raises:
        KdpError: it is no JSON, or something else.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(read_regular(path))
    except (ValueError, RecursionError) as error:
        raise KdpError(f"{path} is damaged: it is no JSON that can be read") from error
    check_types(path, schema, content)
    return content


class Content(BaseModel):
    """A mapping in a file. Other keys than the fields may be there: later versions add some."""

    model_config = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True)


def _plain(value: Any) -> Any:
    """The value, if it and all values inside are text, numbers, true, false or nothing."""
    if isinstance(value, Mapping):
        _plain([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            _plain(item)
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"it must not hold a {type(value).__name__}")
    return value


def _without_null(text: str) -> str:
    if "\0" in text:
        raise ValueError("it must not hold a null character")
    return text


def _none_if_empty(value: Any) -> Any:
    return None if isinstance(value, dict) and not value else value


Plain = Annotated[Any, AfterValidator(_plain)]
Settings = dict[str, Plain]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=0, lt=2**63)]
Score = Annotated[float, Field(gt=-1e300, lt=1e300)] | None
Text = Annotated[str, AfterValidator(_without_null)]
Widths = int | Sequence[int]


class ArchContent(Content):
    """See `kdp.types.Arch.plain`."""

    name: str
    args: Settings
    source: dict[str, str] | None = None
    shapes: dict[str, Sequence[Count]] = {}
    attributes: dict[str, dict[str, Widths]] = {}
    groups: Sequence[Settings] = ()


OptionalArch = Annotated[ArchContent | None, BeforeValidator(_none_if_empty)]


class TimeContent(Content):
    """See `kdp.types.RunTime`."""

    finished: float
    seconds: float | None = None


class RecordContent(Content):
    """See `kdp.types.Provenance.plain`."""

    stage: str
    command: str = ""
    config: Settings = {}
    seed: int | None = None
    versions: dict[str, str] = {}
    device: str = ""
    git_commit: str | None = None
    parents: Sequence[ParentContent] = ()
    metrics: Settings = {}
    time: TimeContent | None = None


Record = Annotated[RecordContent | None, BeforeValidator(_none_if_empty)]


class ParentContent(Content):
    """See `kdp.types.Parent.plain`."""

    path: str
    sha256: str
    record: Record = None


class SourceContent(Content):
    """The artifact that an ONNX file was exported from."""

    name: str
    sha256: str


class DescriptionContent(Content):
    """The description of its network in an ONNX file, see `kdp.stages.export`."""

    arch: ArchContent
    parameters: Count
    nonzero: Count
    source: SourceContent | None = None
    precision: str = "fp32"
    weight_bytes: Count = 0


class MacsContent(Content):
    """Multiply-accumulates of a recorded network."""

    count: Size


class BytesContent(Content):
    """Sizes of the parameters of a recorded network, by precision."""

    fp32: Size
    int8: Size | None = None


class InfoContent(Content):
    """The `info.json` of an experiment: what listing and reproducing it use."""

    exp_id: str
    timestamp: str
    config: str
    notes: str
    sha256: str
    device: str
    threads: Annotated[int, Field(ge=1, le=4096)]
    pruning_step: Size | None
    params: Size
    macs: MacsContent
    bytes: BytesContent
    sparsity: Score = None
    macro_avg_acc: Score
    # Earlier versions called it `headline`.
    primary_metric: str = Field(validation_alias=AliasChoices("primary_metric", "headline"))
    value: Score


class OutputContent(Content):
    """Where the files of a chain are."""

    dir: Text
    name: Text


class ChainContent(Content):
    """See `kdp.stages.chains.Chain`."""

    config: Text
    overrides: list[Text]
    output: OutputContent
    stage: str
    time: str
    finished: bool


class ChainsContent(Content):
    """`.kdp/chains.json`."""

    chains: list[ChainContent]


class RoundRowContent(Content):
    """Measurements after a round of progressive pruning, see `kdp.stages.prune.round.measure`."""

    round: Count
    metrics: dict[str, dict[str, float | None]]
    parameters: Size
    macs: Size
    nonzero: Size
    bytes: Size
    pruning_ratio: float | None = None
    steps: float | None = None
    epochs: float | None = None


class RoundContent(Content):
    """How far a round of progressive pruning has come, see `kdp.stages.prune.round.State`."""

    key: Settings | None = None
    row: RoundRowContent | None = None
    rebuilt: list[str] | None = None

    @model_validator(mode="after")
    def _measured(self) -> RoundContent:
        if self.rebuilt is not None and self.row is None:
            raise ValueError("a round that was rebuilt must have a row")
        return self


RecordContent.model_rebuild()
