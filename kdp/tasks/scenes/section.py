"""Configuration keys of acoustic scenes and their default values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from kdp.config.base import Section
from kdp.config.data import SamplesConfig
from kdp.config.registry import register_data_kind, register_data_options


class SceneSamples(SamplesConfig):
    """Sounds of acoustic scenes with `meta.csv`, in the layout of TAU Urban Acoustic Scenes."""

    folder: Path | None = None
    """Folder that holds `meta.csv`; the environment variable TAU24_PATH if not given."""
    split: str | None = None
    """List of the clips; if not given, split100.csv for training and test.csv for evaluation."""
    subset: Literal[5, 10, 25, 50, 100] | None = None
    """Share of the training clips in percent, in place of `split`: 25 reads split25.csv."""

    @model_validator(mode="after")
    def _one_list(self) -> SceneSamples:
        if self.subset is not None and self.split is not None:
            raise ValueError("subset and split both name the list of clips: leave out one")
        return self


class AudioConfig(Section):
    """Audio augmentation in training."""

    roll: float = Field(0.1, ge=0, lt=1)
    """Largest shift in time, in seconds."""
    mix_style: float = Field(0.4, ge=0, le=1)
    """Probability of Freq-MixStyle."""
    mix_style_alpha: PositiveFloat = 0.3
    """Parameter of the Beta distribution of Freq-MixStyle."""
    frequency_mask: int = Field(48, ge=0, lt=256)
    """Largest width of the frequency mask, in mel bins."""


class AudioOptions(Section):
    """Augmentation of sounds."""

    audio: AudioConfig = AudioConfig()
    """Audio augmentation in training."""


register_data_kind("scenes", SceneSamples)
register_data_options(AudioOptions)
