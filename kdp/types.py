"""The types that many parts of kdp share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Arch:
    """A network's architecture: what to build, before any weights are loaded.

    Attributes:
        name: of the network in `kdp.models.MODELS`.
        args: keyword arguments that build it; plain values.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Arch:
        """The architecture as files hold it, a mapping of plain values."""
        return cls(str(plain["name"]), dict(plain["args"]))

    def plain(self) -> dict[str, Any]:
        """Plain values, for files."""
        return {"name": self.name, "args": self.args}

    def with_args(self, **changes: Any) -> Arch:
        """The same network with some arguments replaced or added."""
        return replace(self, args={**self.args, **changes})
