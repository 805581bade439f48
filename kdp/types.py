"""The types that many parts of kdp share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Ints = int | tuple[int, ...]


@dataclass(frozen=True)
class CodeSource:
    """The code that builds a network which kdp does not ship.

    Attributes:
        callable: `package.module:NAME` or `FILE.py:NAME`.
        sha256: of the file that defines it, in hexadecimal.
    """

    callable: str
    sha256: str


@dataclass(frozen=True)
class Arch:
    """A network's architecture: what to build, before any weights are loaded.

    Attributes:
        name: of the network in `kdp.models.MODELS`.
        args: keyword arguments that build it; plain values.
        source: the code that builds it, None for a built-in network.
        shapes: tensor name -> shape, where it differs from the network as built.
        attributes: module name -> attribute -> value, where it differs from the network as built.
        groups: the prunable groups, as plain values.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    source: CodeSource | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    attributes: dict[str, dict[str, Ints]] = field(default_factory=dict)
    groups: tuple[dict[str, Any], ...] = ()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Arch:
        """The architecture as files hold it, a mapping of plain values."""
        source = plain.get("source")
        attributes = plain.get("attributes", {}).items()
        return cls(
            name=str(plain["name"]),
            args=dict(plain["args"]),
            source=CodeSource(str(source["callable"]), str(source["sha256"])) if source else None,
            shapes={name: tuple(shape) for name, shape in plain.get("shapes", {}).items()},
            attributes={
                module: {name: _ints(value) for name, value in values.items()}
                for module, values in attributes
            },
            groups=tuple(dict(group) for group in plain.get("groups", ())),
        )

    def plain(self) -> dict[str, Any]:
        """Plain values, for files; without the fields that built-in networks do not need."""
        attributes = self.attributes.items()
        optional = {
            "source": vars(self.source) if self.source else None,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "attributes": {
                module: {name: _plain_ints(value) for name, value in values.items()}
                for module, values in attributes
            },
            "groups": list(self.groups),
        }
        # Left out if empty, so that the files of built-in networks stay as short as in version 1.
        present = {key: value for key, value in optional.items() if value}
        return {"name": self.name, "args": self.args, **present}

    def with_args(self, **changes: Any) -> Arch:
        """The same network with some arguments replaced or added."""
        return replace(self, args={**self.args, **changes})


def _ints(value: Any) -> Ints:
    return int(value) if isinstance(value, int) else tuple(value)


def _plain_ints(value: Ints) -> int | list[int]:
    return value if isinstance(value, int) else list(value)


@dataclass(frozen=True)
class RunTime:
    """When a stage finished and how long it took.

    Attributes:
        finished: seconds since the epoch.
        seconds: duration, None if it was not measured.
    """

    finished: float
    seconds: float | None = None


@dataclass(frozen=True)
class Parent:
    """A file that another file was made from.

    Attributes:
        path: as the command named it.
        sha256: of its content, in hexadecimal.
        record: its own provenance, None if kdp did not write it.
    """

    path: str
    sha256: str
    record: Provenance | None = None

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Parent:
        """The parent as files hold it."""
        record = plain.get("record")
        provenance = Provenance.from_plain(record) if record else None
        return cls(str(plain["path"]), str(plain["sha256"]), provenance)

    def plain(self) -> dict[str, Any]:
        """Plain values, for files."""
        record = self.record.plain() if self.record else {}
        return {"path": self.path, "sha256": self.sha256, "record": record}


RENAMED_STAGES = {"teach": "cache-targets"}
"""Stages as the records of earlier versions name them -> their names today."""


@dataclass(frozen=True)
class Provenance:
    """How a file was made: the record inside every artifact.

    A file that occurs twice among the ancestors has its whole record once; elsewhere only `stage`
    and `command` are set.

    Attributes:
        stage: the subcommand.
        command: the command line.
        config: the resolved configuration, plain values.
        seed: that all random numbers came from.
        versions: of kdp, torch and python.
        device: where the stage ran.
        git_commit: of the current folder's repository, None outside of one.
        parents: the files this one was made from.
        metrics: what was measured of the result.
        time: when the stage finished, None if unknown.
        training: `steps`, `epochs`, `samples` and `steps_per_epoch` of a stage that trains; empty
            for others.
    """

    stage: str
    command: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
    git_commit: str | None = None
    parents: tuple[Parent, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    time: RunTime | None = None
    training: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Provenance:
        """The record as files hold it; keys that are missing count as unknown.

        Raises:
            KeyError, TypeError, ValueError: it is not a record.
        """
        time, stage = plain.get("time"), str(plain["stage"])
        return cls(
            stage=RENAMED_STAGES.get(stage, stage),
            command=str(plain.get("command", "")),
            config=dict(plain.get("config", {})),
            seed=plain.get("seed"),
            versions=dict(plain.get("versions", {})),
            device=str(plain.get("device", "")),
            git_commit=plain.get("git_commit"),
            parents=tuple(Parent.from_plain(parent) for parent in plain.get("parents", ())),
            metrics=dict(plain.get("metrics", {})),
            time=RunTime(time["finished"], time.get("seconds")) if time else None,
            training=dict(plain.get("training") or {}),
        )

    def plain(self) -> dict[str, Any]:
        """Plain values, for files; `stage` and `command` alone where nothing else is known."""
        brief = {"stage": self.stage, "command": self.command}
        if self == Provenance(self.stage, self.command):
            return brief
        return {
            **brief,
            "config": self.config,
            "seed": self.seed,
            "versions": self.versions,
            "device": self.device,
            "git_commit": self.git_commit,
            "parents": [parent.plain() for parent in self.parents],
            "metrics": self.metrics,
            "time": vars(self.time) if self.time else None,
            **({"training": self.training} if self.training else {}),
        }
