"""Where the stages write."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

from pydantic import field_validator, model_validator

from kdp.config.base import Section

DEFAULT_DIR, DEFAULT_RUNS = Path("weights"), Path("runs")
LONGEST_NAME = 160
"""Bytes of a name; file systems take 255, and stages, rounds and temporary files add to it."""
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, surrogates (bytes that are no text), line breaks."""


class OutputConfig(Section):
    """Where the stages write."""

    dir: Path = DEFAULT_DIR
    """Folder of the networks; the files are named `{dir}/{name}_<stage>.pth`."""
    name: str
    """Start of the name of every file that this configuration writes; not a path."""
    runs: Path = DEFAULT_RUNS
    """Folder of logs, curves, checkpoints and tables; `{dir}/logs` if not given and `dir` is."""

    @field_validator("name")
    @classmethod
    def _stays_in_folder(cls, name: str) -> str:
        """A separator would lead out of `dir` and `runs`, where `kdp clean` deletes."""
        if not name.strip() or name in (".", ".."):
            raise ValueError("it must be a name")
        if "/" in name or "\\" in name:
            raise ValueError("it must be a name without / and \\; output.dir is the folder")
        if any(unicodedata.category(character) in _UNPRINTABLE for character in name):
            raise ValueError("it has characters that cannot be printed")
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise ValueError(f"it is longer than {LONGEST_NAME} bytes")
        return name

    @model_validator(mode="before")
    @classmethod
    def _runs_follow_dir(cls, values: Any) -> Any:
        """Two folders of weights never share one of logs: else a toy run meets the checkpoint of a
        real one."""
        if not isinstance(values, dict) or values.get("runs") is not None:
            return values
        folder = values.get("dir", DEFAULT_DIR)
        if not isinstance(folder, str | Path):
            return values  # the schema says what is wrong with it
        folder = Path(folder)
        return {**values, "runs": DEFAULT_RUNS if folder == DEFAULT_DIR else folder / "logs"}
