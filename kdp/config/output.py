"""Where the stages write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import model_validator

from kdp.config.base import Section

DEFAULT_DIR, DEFAULT_RUNS = Path("weights"), Path("runs")


class OutputConfig(Section):
    """Where the stages write: `{dir}/{name}_*.pth`, and logs and checkpoints in `{runs}`.

    `runs` follows `dir` where it is not given: `runs` for `weights`, else `{dir}/logs`. Two folders
    of weights never share one of logs, so that a toy run never meets a real one's checkpoint.
    """

    dir: Path = DEFAULT_DIR
    name: str
    runs: Path = DEFAULT_RUNS

    @model_validator(mode="before")
    @classmethod
    def _runs_follow_dir(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("runs") is not None:
            return values
        folder = values.get("dir", DEFAULT_DIR)
        if not isinstance(folder, str | Path):
            return values  # the schema says what is wrong with it
        folder = Path(folder)
        return {**values, "runs": DEFAULT_RUNS if folder == DEFAULT_DIR else folder / "logs"}
