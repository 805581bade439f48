"""The network to build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdp.config.base import Section
from kdp.types import Arch


class ModelConfig(Section):
    """A network of `kdp.models`, its arguments, and the file its training starts from, if any."""

    name: str
    args: dict[str, Any] = {}
    weights: Path | None = None

    @property
    def arch(self) -> Arch:
        """Name and arguments, as artifacts keep them."""
        return Arch(self.name, self.args)
