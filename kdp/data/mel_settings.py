"""Settings of log-mel spectrograms. They are part of a network: it reads no other spectrograms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

SampleRate = Annotated[int, Field(ge=1000, le=192_000)]
Bins = Annotated[int, Field(ge=1, le=1024)]
FFTSize = Annotated[int, Field(ge=2, le=32_768, multiple_of=2)]
Length = Annotated[int, Field(ge=1, le=192_000)]
Frequency = Annotated[float, Field(ge=0, le=96_000)]
MAX_SPECTRUM = 4_194_304
"""Complex numbers in the spectrum of one second: half a gigabyte for the 16 of a chunk."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class MelSettings:
    """How log-mel spectrograms are computed; by default as in the DCASE 2024 Task 1 baseline.

    Attributes:
        sample_rate: of the waveforms, in Hz.
        n_mels: number of mel bins.
        window_length: of the Hann window, in samples.
        hop_length: samples from one frame to the next.
        n_fft: size of the FFT, in samples; shorter windows are padded with zeros.
        f_min, f_max: where the mel bins begin and end, in Hz; half the sampling rate by default.

    Raises:
        ValidationError: a value is out of its range, or values contradict one another.
    """

    sample_rate: SampleRate = 32_000
    n_mels: Bins = 256
    window_length: Length = 3072
    hop_length: Length = 500
    n_fft: FFTSize = 4096
    f_min: Frequency = 0.0
    f_max: Frequency | None = None

    def __post_init__(self) -> None:
        if self.f_max is None:
            object.__setattr__(self, "f_max", self.sample_rate / 2)
        if reason := self._contradiction():
            raise ValueError(reason)

    def _contradiction(self) -> str | None:
        """What no spectrogram of one second can be computed with."""
        rate, n_fft, top = self.sample_rate, self.n_fft, self.highest
        if self.window_length > n_fft:
            return f"window_length ({self.window_length}) is longer than n_fft ({n_fft})"
        if self.hop_length > rate:
            return f"hop_length ({self.hop_length}) is longer than a second, {rate} samples"
        if n_fft // 2 >= rate:  # reflect padding of half an FFT at both ends
            return f"half of n_fft ({n_fft}) is not shorter than a second, {rate} samples"
        if top > rate / 2:
            return f"f_max ({top:g} Hz) is above half of sample_rate, {rate / 2:g} Hz"
        if self.f_min >= top:
            return f"f_min ({self.f_min:g} Hz) is not below f_max ({top:g} Hz)"
        if self.n_mels > n_fft // 2:
            return f"n_mels ({self.n_mels}) is more than half of n_fft ({n_fft})"
        if self.frames * (n_fft // 2 + 1) > MAX_SPECTRUM:
            return f"hop_length ({self.hop_length}) is too short for n_fft ({n_fft})"
        return None

    @property
    def highest(self) -> float:
        """`f_max` as a number."""
        return self.sample_rate / 2 if self.f_max is None else self.f_max

    @property
    def frames(self) -> int:
        """Frames of one second."""
        return 1 + self.sample_rate // self.hop_length

    @property
    def plain(self) -> dict[str, Any]:
        """Plain values, for files."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The settings that are not the default, in words; empty where all are."""
        default = MelSettings().plain
        if self.sample_rate != MelSettings().sample_rate and self.highest == self.sample_rate / 2:
            default["f_max"] = self.highest  # follows from the sampling rate
        changed = {key: value for key, value in self.plain.items() if value != default[key]}
        return ", ".join(f"{key}={value:g}" for key, value in changed.items())


KEYS = tuple(field.name for field in fields(MelSettings))


def mel_settings(plain: Mapping[str, Any] | None) -> MelSettings:
    """The settings in a file or a configuration; defaults where there are none.

    Raises:
        ValueError: they are not usable; the message is one line.
    """
    try:
        return TypeAdapter(MelSettings).validate_python(dict(plain or {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(place + first["msg"].removeprefix("Value error, ")) from error


def _usable(plain: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    mel_settings(plain)
    return plain


MelArguments = Annotated[Mapping[str, Any] | None, AfterValidator(_usable)]
"""Annotation of a network's argument: the settings of the spectrograms that it reads."""
