"""Waves, clips and tables that tests of audio data share."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kdp.data import mel
from kdp.data.scenes import Clip

FILES = (
    "audio/airport-barcelona-0-0-a.wav",
    "audio/airport-barcelona-0-0-s1.wav",
    "audio/bus-lyon-1000-40-b.wav",
    "audio/tram-vienna-7-3-s4.wav",
)
HEADER = ("filename", "scene_label", "identifier", "source_label")


def table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([header, *rows])


def sine(hertz: float, seconds: float = 1.0, rate: int = 32000) -> Any:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def ramp_clip(name: str, seconds: float = 1.0, label: int = 0) -> Clip:
    """A rising ramp, so that every segment differs; its length is known only after decoding."""
    wave = np.linspace(0.1, 0.9, round(seconds * 32000), dtype=np.float32) + label
    return Clip(name, label, "a", "here", lambda: wave)


@lru_cache(maxsize=1)
def log_mel() -> mel.LogMel:
    return mel.LogMel()
