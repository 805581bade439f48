"""Sounds and small networks that label them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from kdp.artifacts import Artifact, make_record, save
from kdp.models import build
from kdp.models.mobile import SCENES
from kdp.types import Arch
from tests.in_process import Ended, call_kdp

SMALL = {"stem": 4, "channels": [8, 8], "hidden": [10, 12], "strides": [[2, 2], [2, 2]]}
RECORDINGS: dict[str, tuple[float, int, int]] = {
    "cd.wav": (2.7, 44_100, 2),
    "five.ogg": (5.0, 48_000, 1),
    "phone.flac": (1.0, 8_000, 1),
    "short.wav": (0.3, 16_000, 1),
    "studio.flac": (1.999, 96_000, 3),
    "native.WAV": (3.0, 32_000, 2),
}
"""Name -> seconds, sampling rate, channels."""
NAMES = sorted(RECORDINGS)


def write_sound(path: Path, seconds: float = 1.0, rate: int = 32_000, channels: int = 1) -> Path:
    """Write noise whose loudness rises, so that segments and files differ."""
    count = round(seconds * rate)
    random = np.random.default_rng([*path.name.encode(), rate])
    noise = random.uniform(-1, 1, (count, channels)) * np.linspace(0.01, 0.6, count)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.cumsum(noise, axis=0) % 1 - 0.5 if rate > 20_000 else noise, rate)
    return path


def write_recordings(folder: Path) -> Path:
    """Write `RECORDINGS`, a note, and a sound in a folder within."""
    for name, (seconds, rate, channels) in RECORDINGS.items():
        write_sound(folder / name, seconds, rate, channels)
    (folder / "notes.txt").write_text("no sound")
    write_sound(folder / "deeper" / "other.wav")
    return folder


def write_network(path: Path, name: str = "rep_mobile", **args: Any) -> Path:
    """Write a network whose outputs differ clearly from input to input."""
    torch.manual_seed(0)
    args = {**SMALL, **args}
    model = build(name, **args)
    for _ in range(3):
        model(4 * torch.randn(4, 1, 64, 33) - 3)
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    save(path, Artifact(model.state_dict(), Arch(name, args), make_record("train", {})))
    return path


def write_table(folder: Path, names: list[str]) -> None:
    """Describe sounds as TAU does, so that a configuration can evaluate on them."""
    rows = [f"{name}\t{SCENES[0]}\there\ta\n" for name in names]
    head = "filename\tscene_label\tidentifier\tsource_label\n"
    for table in ("meta.csv", "test.csv"):
        (folder / table).write_text(head + "".join(rows))


def write_damaged(path: Path, kind: str) -> Path:
    """Write a sound with nothing to label in it."""
    whole = write_sound(path, 3).read_bytes()
    silence, noise = np.zeros(32_000), np.random.default_rng(0).uniform(-0.5, 0.5, 32_000)
    if kind in ("not finite", "of integers"):
        noise[7] = np.nan if kind == "not finite" else 20_000
        soundfile.write(path, noise, 32_000, subtype="FLOAT")
    elif kind in ("silent", "cancelled", "without samples", "too short"):
        samples = {
            "silent": silence,
            "cancelled": np.stack([noise, -noise], 1),
            "without samples": noise[:0],
            "too short": noise[:1],
        }[kind]
        soundfile.write(path, samples, 192_000)
    else:
        path.write_bytes(
            {"no sound": b"no sound" * 99, "empty": b""}.get(kind, whole[: len(whole) // 2])
        )
    return path


def infer(*arguments: str | Path) -> Ended:
    """Run `kdp infer` on the CPU."""
    return call_kdp("infer", *arguments, "--device", "cpu")


def probabilities(table: str) -> dict[str, list[float]]:
    """Those of a submission, by file, in the order of its columns."""
    rows = csv.DictReader(table.splitlines(), delimiter="\t")
    return {row["filename"]: [float(row[name]) for name in sorted(SCENES)] for row in rows}
