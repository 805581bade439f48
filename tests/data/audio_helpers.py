"""Waves, clips and tables that tests of audio data share."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

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


def write_esc50(folder: Path, seconds: float = 0.2) -> Path:
    """A miniature of ESC-50's repository: four classes, two of ESC-10, with takes of one source."""
    classes = (("dog", 0, True), ("rain", 10, True), ("cat", 5, False), ("train", 45, False))
    (folder / "meta").mkdir(parents=True)
    (folder / "audio").mkdir()
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold, (name, target, esc10), source, take in product(range(1, 6), classes, (1, 2, 3), "AB"):
        file = f"{fold}-{fold}{target}{source}-{take}-{target}.wav"
        lines.append(f"{file},{fold},{target},{name},{esc10},{fold}{target}{source},{take}")
        wave = sine(200 + 20 * len(lines), seconds, 44_100)
        soundfile.write(folder / "audio" / file, wave, 44_100)
    (folder / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_tau(folder: Path, scenes: Sequence[str], splits: dict[str, str], places: int = 6) -> Path:
    """A miniature of TAU: one second per device of two segments of every place.

    Args:
        folder: to make.
        scenes: classes.
        splits: path of the training and of the test split -> "train" or "test".
        places: recording places of each scene; the last one is for the test.
    """
    (folder / "audio").mkdir(parents=True)
    rows: dict[str, list[tuple[str, ...]]] = {"train": [], "test": []}
    for (label, scene), place, part in product(enumerate(scenes), range(places), range(2)):
        spot = 100 * label + place
        is_test = place == places - 1
        for number, device in enumerate(("a", "s1", "s4") if is_test else ("a", "s1")):
            name = f"audio/{scene}-lyon-{spot}-{part}-0-{device}.wav"
            wave = sine(150 + 3 * spot + 20 * part + number, 1.0, 44_100)
            soundfile.write(folder / name, wave, 44_100)
            rows["test" if is_test else "train"].append((name, scene, f"lyon-{spot}", device))
    table(folder / "meta.csv", HEADER, [*rows["train"], *rows["test"]])
    for path, part in splits.items():
        (folder / path).parent.mkdir(exist_ok=True)
        table(folder / path, ("filename",), [row[:1] for row in rows[part]])
    return folder
