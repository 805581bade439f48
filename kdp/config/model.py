"""The network to build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdp.config.base import Section
from kdp.types import Arch


class ModelConfig(Section):
    """The network to train."""

    name: str
    """Name of the architecture."""
    args: dict[str, Any] = {}
    """Keyword arguments of the architecture, such as its width."""
    weights: Path | None = None
    """Weights that training starts from; random initialisation if not given."""

    @property
    def arch(self) -> Arch:
        """Name and arguments, as artifacts keep them."""
        return Arch(self.name, self.args)
