"""Reading sounds."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdp.errors import KdpError, first_line

Wave = npt.NDArray[np.float32]
"""(samples,) of one channel, mostly in -1..1."""
RATE = 32_000
"""Samples per second, everywhere after reading."""


def audio_package(name: str) -> Any:
    """A module of the `audio` extra, imported now.

    Raises:
        KdpError: it is not installed, or the library below it is missing.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        reason = first_line(error)
        raise KdpError(f"sound needs: pip install soundfile soxr ({reason})") from error


def read_mono(path: Path) -> tuple[Wave, int]:
    """The mean of a file's channels, and its samples per second.

    WAV, FLAC, Ogg and whatever else libsndfile knows.

    Raises:
        KdpError: missing, corrupt, of an unknown format, or empty, by name.
    """
    wave, rate = _soundfile(path, "read", dtype="float32", always_2d=True)
    if not len(wave):
        raise KdpError(f"the sound {path} is empty")
    if not np.isfinite(wave).all():
        raise KdpError(f"the sound {path} is corrupt: it has samples that are not finite")
    return wave.mean(1, dtype=np.float32), int(rate)


def read_wave(path: Path) -> Wave:
    """A file's (samples,) at 32 kHz; raises as `read_mono`."""
    return resampled(*read_mono(path))


def duration(path: Path) -> float:
    """Seconds of sound, as the file's header says; nothing is decoded.

    Raises:
        KdpError: missing, corrupt or of an unknown format, by name.
    """
    info = _soundfile(path, "info")
    return float(info.frames / info.samplerate)


def resampled(wave: Wave, rate: int, to: int = RATE) -> Wave:
    """The same sound at `to` samples per second, by soxr's "HQ" (band-limited).

    Args:
        wave: (samples,).
        rate: its samples per second.
        to: the wanted samples per second.
    """
    if rate == to:
        return wave
    found: Wave = audio_package("soxr").resample(wave, rate, to, quality="HQ")
    return found


def _soundfile(path: Path, verb: str, **options: Any) -> Any:
    package = audio_package("soundfile")
    if not path.is_file():
        raise KdpError(f"the sound {path} does not exist")
    try:
        return getattr(package, verb)(str(path), **options)
    except (RuntimeError, TypeError) as error:
        # TypeError: a suffix .raw, which has no header to say what it holds.
        raise KdpError(
            f"cannot read the sound {path}: it is corrupt or of an unknown format"
        ) from error
