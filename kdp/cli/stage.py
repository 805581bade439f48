"""Opening the configuration that a stage of the chain runs with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kdp.errors import KdpError

if TYPE_CHECKING:
    from kdp.config import Config

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """A stage with its configuration."""

    config: Config

    def run(self, stage: Callable[..., T], **options: Any) -> T:
        """Run the function of a stage."""
        return stage(self.config, **options)


def open_stage(name: str, config: Path | None, overrides: Sequence[str]) -> Stage:
    """The configuration of a stage.

    Raises:
        KdpError: there is none, or it is invalid.
    """
    from kdp.config.compose import load_config

    if config is None:
        raise KdpError(f"kdp {name} needs --config FILE")
    return Stage(load_config(config, overrides))
