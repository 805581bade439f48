"""Where results are kept."""

from __future__ import annotations

from pathlib import Path

from kdp.config.base import Section


class ExperimentsConfig(Section):
    """Keep every result under `folder`, beside what made it; `notes` go into its table."""

    folder: Path = Path("experiments")
    notes: str = ""
