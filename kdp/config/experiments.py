"""Where results are kept."""

from __future__ import annotations

from pathlib import Path

from kdp.config.base import Section


class ExperimentsConfig(Section):
    """Keep every result with all that is needed to reproduce it."""

    folder: Path = Path("experiments")
    """Folder of the experiments."""
    notes: str = ""
    """Text for the table of experiments."""
