"""What acoustic scenes add to the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from kdp.config.base import Section
from kdp.config.data import SamplesConfig
from kdp.config.registry import register_data_kind, register_data_options
from kdp.data.mel_settings import (
    KEYS,
    Bins,
    FFTSize,
    Frequency,
    Length,
    SampleRate,
    mel_settings,
)


class SceneSamples(SamplesConfig):
    """Sounds of acoustic scenes with `meta.csv`, in the layout of TAU Urban Acoustic Scenes."""

    folder: Path | None = None
    """Folder that holds `meta.csv`; the environment variable TAU24_PATH if not given."""
    split: str | None = None
    """List of the clips; if not given, split100.csv for training and test.csv for evaluation."""
    subset: Literal[5, 10, 25, 50, 100] | None = None
    """Share of the training clips in percent, in place of `split`: 25 reads split25.csv."""
    part: Literal["train", "val"] | None = None
    """Part of the list: `val` is held out of it, by recording location, to choose the best network
    by; `train` is the rest; the whole list if not given."""
    val: float = Field(0.05, gt=0, lt=1)
    """Share of every class that is held out for `val`."""
    seed: int = 0
    """Decides which locations are held out."""

    @model_validator(mode="after")
    def _one_list(self) -> SceneSamples:
        if self.subset is not None and self.split is not None:
            raise ValueError("subset and split both name the list of clips: leave out one")
        return self


class Esc50Samples(SamplesConfig):
    """Sounds of ESC-50 or ESC-10, in the folder of their repository."""

    folder: Path
    """Folder that holds `meta/esc50.csv` and `audio/`."""
    esc10: bool = False
    """Take the ten classes of ESC-10 alone."""
    test_folds: list[int] = Field([5], min_length=1, max_length=4)
    """Folds to test on, of 1 to 5; the others are for training."""
    part: Literal["train", "val", "test"]
    """Which part: `test` are the test folds; `val` is held out of the others, by source of the
    sounds, to choose the best network by; `train` is the rest."""
    val: float = Field(0.1, gt=0, lt=1)
    """Share of every class that is held out for `val`."""
    seed: int = 0
    """Decides which sources are held out."""

    @field_validator("test_folds")
    @classmethod
    def _published_folds(cls, folds: list[int]) -> list[int]:
        if len(set(folds)) < len(folds) or not set(folds) <= {1, 2, 3, 4, 5}:
            raise ValueError(f"the folds are 1 to 5, each once, not {folds}")
        return folds


class AudioConfig(Section):
    """The input of audio networks, and how it is changed in training.

    The settings of the input belong to a network and are kept with it. For a network that exists
    they may be left out; others than its own are refused.
    """

    sample_rate: SampleRate | None = None
    """Sampling rate in Hz that sounds are resampled to; 32000 for a new network if not given."""
    n_mels: Bins | None = None
    """Number of mel bins; 256 for a new network if not given."""
    window_length: Length | None = None
    """Length of the window in samples, at most n_fft; 3072 for a new network if not given."""
    hop_length: Length | None = None
    """Samples from one frame to the next; 500 for a new network if not given."""
    n_fft: FFTSize | None = None
    """Size of the FFT in samples; 4096 for a new network if not given."""
    f_min: Frequency | None = None
    """Lowest frequency of the mel bins in Hz; 0 for a new network if not given."""
    f_max: Frequency | None = None
    """Highest frequency of the mel bins in Hz; half of sample_rate for a new network if not
    given."""
    roll: float = Field(0.1, ge=0, lt=1)
    """Largest shift in time, in seconds."""
    mix_style: float = Field(0.4, ge=0, le=1)
    """Probability of Freq-MixStyle."""
    mix_style_alpha: PositiveFloat = 0.3
    """Parameter of the Beta distribution of Freq-MixStyle."""
    frequency_mask: int = Field(48, ge=0, lt=256)
    """Largest width of the frequency mask, in mel bins."""

    @property
    def input_settings(self) -> dict[str, Any]:
        """The settings of the input that are given."""
        given = {key: getattr(self, key) for key in KEYS}
        return {key: value for key, value in given.items() if value is not None}

    @model_validator(mode="after")
    def _computable(self) -> AudioConfig:
        mel_settings(self.input_settings)
        if self.n_mels is not None and self.frequency_mask >= self.n_mels:
            raise ValueError(
                f"frequency_mask ({self.frequency_mask}) must be smaller than n_mels "
                f"({self.n_mels})"
            )
        return self


class AudioOptions(Section):
    """How sounds are read."""

    audio: AudioConfig = AudioConfig()
    """The input of audio networks, and how it is changed in training."""


register_data_kind("scenes", SceneSamples)
register_data_kind("esc50", Esc50Samples)
register_data_options(AudioOptions)
