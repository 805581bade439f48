"""Reading audio files."""

from __future__ import annotations

import errno
import importlib
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kdp.errors import KdpError, first_line
from kdp.files import why_no_file

Wave = npt.NDArray[np.float32]
"""(samples,) of one channel, full scale at -1..1."""
MAX_SAMPLES = 200_000_000
"""Of all channels of a file; 800 MB in float32, half an hour of stereo at 48 kHz."""
LOUDEST = 4.0
"""Files of floating-point samples may exceed full scale by so much, not by more."""
FAINTEST = 2.0**-15
"""The peak of 16-bit numbers that were stored as 32-bit ones; a microphone's noise is louder."""
UNSCALED = ("FLOAT", "DOUBLE", "PCM_32")
"""soundfile's kinds of samples that may hold numbers of another scale."""
UNKNOWN_LENGTH = 0x7FFFFF00
"""Headers that were written before the sound ended announce at least so many bytes."""
CONTAINERS: dict[bytes, Literal["little", "big"]] = {
    b"RIFF": "little",
    b"RIFX": "big",
    b"FORM": "big",
}
"""First bytes of WAV and AIFF files -> byte order of the length that follows."""
OGG_HEADER, OGG_PAGE = 27, 65_307
"""Bytes of a page's header before its lengths, and of the largest page (RFC 3533)."""
SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}
)
"""Of the files that are taken for sounds in a folder."""
HEAD_BYTES = 28
RATE = 32_000
"""Sampling rate in Hz that waveforms are resampled to unless another one is asked for."""


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
        KdpError: the file is missing, corrupt, cut off, of an unknown format, or empty, or its
            samples are not on the scale -1..1.
    """
    info = _whole_info(path)
    if info.frames * info.channels > MAX_SAMPLES:
        raise KdpError(f"the sound {path} has more than {MAX_SAMPLES:,} samples: refused")
    wave, rate = _soundfile(path, "read", dtype="float32", always_2d=True)
    if not len(wave):
        raise KdpError(f"the sound {path} is empty")
    if not np.isfinite(wave).all():
        raise KdpError(f"the sound {path} is corrupt: it has samples that are not finite")
    if len(wave) < info.frames:
        raise _cut_off(path)
    _check_scale(path, float(np.abs(wave).max()), info.subtype)
    return wave.mean(1, dtype=np.float32), int(rate)


def _check_scale(path: Path, peak: float, kind: str) -> None:
    if peak > LOUDEST:
        raise KdpError(
            f"the sound {path} has samples up to {peak:.6g}, where full scale is 1: divide them by "
            "32768 if they are 16-bit numbers stored as floating-point ones"
        )
    if kind == "PCM_32" and 0 < peak <= FAINTEST:
        raise KdpError(
            f"the sound {path} has samples up to {peak:.3g}, where full scale is 1: it seems to "
            "hold 16-bit numbers as 32-bit ones; multiply them by 65536"
        )


def read_wave(path: Path, rate: int = RATE) -> Wave:
    """Read a file as (samples,) at `rate` Hz; see `read_timed`."""
    return read_timed(path, rate)[0]


def read_timed(path: Path, rate: int = RATE) -> tuple[Wave, float]:
    """Read a file as (samples,) at `rate` Hz, with the duration in seconds that `duration` returns.

    Raises:
        KdpError: see `read_mono`; or the file is too short for one sample at `rate` Hz.
    """
    mono, own_rate = read_mono(path)
    wave = resampled(mono, own_rate, rate)
    if not len(wave):
        raise KdpError(f"the sound {path} is too short: {len(mono)} samples at {own_rate} Hz")
    return wave, len(mono) / own_rate


def duration(path: Path) -> float:
    """Duration in seconds from the file's header, without decoding.

    Floating-point and 32-bit samples, which need no decoding, are read: their header does not say
    their scale.

    Raises:
        KdpError: the file is missing, corrupt, cut off or of an unknown format, or its samples are
            not on the scale -1..1.
    """
    info = _whole_info(path)
    if not info.frames:
        raise KdpError(f"the sound {path} is empty")
    if info.subtype in UNSCALED:
        read_mono(path)
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


def _whole_info(path: Path) -> Any:
    """soundfile's description of a file that has all the samples that its header announces.

    libsndfile takes what is left of a file that was cut off as all of it.

    Raises:
        KdpError: it has not, or it cannot be read.
    """
    info = _soundfile(path, "info")
    if not _is_whole(path, info):
        raise _cut_off(path)
    return info


def _is_whole(path: Path, info: Any) -> bool:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head[:4] == b"OggS":
        return _last_page_is_whole(path)
    if info.format == "FLAC":
        return _has_frame(path, info.frames - 1)
    announced = _announced_bytes(head)
    if announced is None:
        return "truncated" not in info.extra_info
    return announced <= path.stat().st_size


def _announced_bytes(head: bytes) -> int | None:
    """Bytes that a file has at least, according to its head; None where the head says nothing.

    Most heads leave out the bytes before the number, and some programs count these too.
    """
    kind = head[:4]
    if kind in (b"RF64", b"BW64") and head[12:16] == b"ds64":  # WAV beyond 4 GB
        return int.from_bytes(head[20:28], "little")
    if kind == b"riff":  # Sony Wave64
        return int.from_bytes(head[16:24], "little")
    if kind in CONTAINERS:
        start, announced = 0, int.from_bytes(head[4:8], CONTAINERS[kind])
    elif kind == b".snd":
        start, announced = (int.from_bytes(head[i : i + 4], "big") for i in (4, 8))
    else:
        return None
    return None if announced >= UNKNOWN_LENGTH else start + announced


def _last_page_is_whole(path: Path) -> bool:
    """Whether an Ogg file has as much of its last page as the page's header announces.

    Not every program marks the page that ends a stream, so a cut between two pages is not seen.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OGG_PAGE))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < OGG_HEADER:
        return False
    lengths = page[OGG_HEADER : OGG_HEADER + page[OGG_HEADER - 1]]
    return OGG_HEADER + page[OGG_HEADER - 1] + sum(lengths) <= len(page)


def _has_frame(path: Path, number: int) -> bool:
    try:
        with audio_package("soundfile").SoundFile(str(path)) as file:
            file.seek(max(0, number))
            return number < 0 or len(file.read(1)) == 1
    except RuntimeError:
        return False


def _cut_off(path: Path) -> KdpError:
    return KdpError(f"the sound {path} is cut off: its header announces more than there is")


def _soundfile(path: Path, function: str, **options: Any) -> Any:
    package = audio_package("soundfile")
    if not path.is_file():
        raise KdpError(f"the sound {path} {why_no_file(path)}")
    try:
        return getattr(package, function)(str(path), **options)
    except (RuntimeError, TypeError) as error:
        # soundfile raises TypeError for .raw files, which have no header.
        reason = "it is corrupt or of an unknown format"
        if not os.access(path, os.R_OK):
            reason = os.strerror(errno.EACCES)
        raise KdpError(f"cannot read the sound {path}: {reason}") from error
