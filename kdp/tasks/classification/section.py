"""Configuration keys of classification and their default values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from kdp.config.base import Section
from kdp.config.data import SamplesConfig
from kdp.config.registry import register_data_kind


class SplitConfig(Section):
    """Divide a folder into parts; every class is divided in the same proportions."""

    part: Literal["train", "val", "test"]
    """Which part."""
    seed: int = 0
    """Decides which sample is in which part, together with the content of its file."""
    val: float = Field(0.1, ge=0, lt=1)
    """Share of every class for validation."""
    test: float = Field(0.1, ge=0, lt=1)
    """Share of every class for the test."""

    @model_validator(mode="after")
    def _leaves_samples_to_train(self) -> SplitConfig:
        if self.val + self.test >= 1:
            raise ValueError("val and test leave nothing to train on")
        return self


class FolderSamples(SamplesConfig):
    """Images in a folder for each class."""

    folder: Path
    """Folder that holds the folders of the classes."""
    split: SplitConfig | None = None
    """Take one part of the folder; without it, all of it."""


register_data_kind("folders", FolderSamples)
