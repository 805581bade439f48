"""Reading audio files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdp.errors import KdpError, first_line

Wave = npt.NDArray[np.float32]
"""(samples,) of one channel, full scale at -1..1."""
MAX_SAMPLES = 200_000_000
"""Of all channels of a file; 800 MB in float32, half an hour of stereo at 48 kHz."""
RATE = 32_000
"""Sampling rate in Hz of every waveform after reading."""


def audio_package(name: str) -> Any:
    """Import a module of the `audio` extra.

    Raises:
        KdpError: the package, or the shared library it wraps, is missing.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        reason = first_line(error)
        raise KdpError(f"audio needs: pip install soundfile soxr ({reason})") from error


def read_mono(path: Path) -> tuple[Wave, int]:
    """Read a file, average its channels, and return the waveform and its sampling rate.

    Reads WAV, FLAC, Ogg and every other format that libsndfile supports.

    Raises:
        KdpError: the file is missing, corrupt, of an unknown format, or empty.
    """
    info = _soundfile(path, "info")
    if info.frames * info.channels > MAX_SAMPLES:
        raise KdpError(f"the sound {path} has more than {MAX_SAMPLES:,} samples: refused")
    wave, rate = _soundfile(path, "read", dtype="float32", always_2d=True)
    if not len(wave):
        raise KdpError(f"the sound {path} is empty")
    if not np.isfinite(wave).all():
        raise KdpError(f"the sound {path} is corrupt: it has samples that are not finite")
    return wave.mean(1, dtype=np.float32), int(rate)


def read_wave(path: Path) -> Wave:
    """Read a file as (samples,) at 32 kHz; see `read_mono` for errors."""
    return resampled(*read_mono(path))


def duration(path: Path) -> float:
    """Duration in seconds from the file's header, without decoding.

    Raises:
        KdpError: the file is missing, corrupt or of an unknown format.
    """
    info = _soundfile(path, "info")
    return float(info.frames / info.samplerate)


def resampled(wave: Wave, rate: int, to: int = RATE) -> Wave:
    """Resample to `to` Hz by soxr's band-limited "HQ" quality.

    Args:
        wave: (samples,).
        rate: its sampling rate in Hz.
        to: the target sampling rate in Hz.
    """
    if rate == to:
        return wave
    result: Wave = audio_package("soxr").resample(wave, rate, to, quality="HQ")
    return result


def _soundfile(path: Path, function: str, **options: Any) -> Any:
    package = audio_package("soundfile")
    if not path.is_file():
        raise KdpError(f"the sound {path} does not exist")
    try:
        return getattr(package, function)(str(path), **options)
    except (RuntimeError, TypeError) as error:
        # soundfile raises TypeError for .raw files, which have no header.
        raise KdpError(
            f"cannot read the sound {path}: it is corrupt or of an unknown format"
        ) from error
