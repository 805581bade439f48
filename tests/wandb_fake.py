"""A `wandb` package that keeps what it is told, for the process of a test."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@dataclass
class FakeRun:
    """What a run was started with, and what it logged: pairs of a step and its numbers."""

    started: dict[str, Any]
    logged: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    finished: bool = False

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        assert not self.finished
        assert not self.logged or step >= self.logged[-1][0], "W&B drops earlier steps"
        self.logged.append((step, dict(numbers)))

    def finish(self) -> None:
        self.finished = True

    @property
    def summary(self) -> dict[str, float]:
        """The last value of every number, as W&B shows it."""
        return {name: value for _, numbers in self.logged for name, value in numbers.items()}


def install_wandb(
    folder: Path, patch: pytest.MonkeyPatch, fault: Exception | None = None
) -> list[FakeRun]:
    """Install the package and return the list of its runs, which grows.

    Args:
        folder: for the metadata of the package.
        patch: removes it at the end of the test.
        fault: what starting a run raises.
    """
    runs: list[FakeRun] = []

    def init(**started: Any) -> FakeRun:
        if fault:
            raise fault
        runs.append(FakeRun(started))
        return runs[-1]

    module = ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "wandb", module)
    about = folder / "site" / "wandb-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 1\n")
    patch.syspath_prepend(folder / "site")
    for variable in ("WANDB_MODE", "WANDB_DIR", "WANDB_CACHE_DIR"):
        patch.delenv(variable, raising=False)
    return runs
