"""Where the stages write."""

from __future__ import annotations

from pathlib import Path

from kdp.config.base import Section


class OutputConfig(Section):
    """Where the stages write: `{dir}/{name}_*.pth`, and logs and checkpoints in `{runs}`."""

    dir: Path = Path("weights")
    name: str
    runs: Path = Path("runs")
