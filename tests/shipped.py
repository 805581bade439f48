"""The shipped configurations."""

from __future__ import annotations

from functools import cache

from kdp.config import Config
from kdp.config.compose import load_config
from kdp.shipped import CONFIGS
from tests.conftest import ROOT

NAMES = [name for name in CONFIGS if not name.startswith("overlays")]


@cache
def shipped(name: str) -> Config:
    """One of `NAMES`; several tests read each, and it cannot be changed."""
    return load_config(ROOT / "configs" / name)
