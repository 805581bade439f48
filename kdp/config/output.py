"""Where the stages write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import model_validator

from kdp.config.base import Section

DEFAULT_DIR, DEFAULT_RUNS = Path("weights"), Path("runs")


class OutputConfig(Section):
    """Where the stages write."""

    dir: Path = DEFAULT_DIR
    """Folder of the networks; the files are named `{dir}/{name}_<stage>.pth`."""
    name: str
    """Start of the name of every file that this configuration writes."""
    runs: Path = DEFAULT_RUNS
    """Folder of logs, curves, checkpoints and tables; `{dir}/logs` if not given and `dir` is."""

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
