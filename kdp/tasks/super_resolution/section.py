"""Configuration keys of super-resolution and their default values."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from kdp.config.base import Section, Side
from kdp.config.data import SamplesConfig
from kdp.config.registry import (
    register_calibration_options,
    register_data_kind,
    register_data_options,
    register_section,
)


class PairedSamples(SamplesConfig):
    """HR images and the LR images made from them, in two folders."""

    hr: Path
    """Folder of the HR images."""
    lr: Path
    """Folder of the LR images."""
    lr_template: str | None = None
    """Name of the LR image of an HR image, with {stem} and {scale}; common names are tried
    if not given."""


class HrOnlySamples(SamplesConfig):
    """HR images; the LR images are made by MATLAB-style bicubic resizing."""

    hr: Path
    """Folder of the HR images."""
    cache: Path = Path(".cache/lr")
    """Folder that keeps the LR images."""


class PatchOptions(Section):
    """Crops of training images."""

    patch_size: Side = 54
    """Side of an LR crop, in pixels."""


class CalibrationPatches(Section):
    """Crops that importance is measured on."""

    patch_size: Side = 28
    """Super-resolution: side of an LR crop, in pixels."""


class TileConfig(Section):
    """Large images are computed in overlapping tiles."""

    size: Side = 256
    """Side of a tile, in input pixels."""
    overlap: Side = 32
    """Overlap of neighbouring tiles, in input pixels."""

    @model_validator(mode="after")
    def _moves_on(self) -> TileConfig:
        if self.overlap >= self.size:
            raise ValueError(f"overlap ({self.overlap}) must be less than size ({self.size})")
        return self


register_data_kind("paired", PairedSamples)
register_data_kind("hr_only", HrOnlySamples)
register_data_options(PatchOptions)
register_calibration_options(CalibrationPatches)
register_section("tiles", TileConfig)
