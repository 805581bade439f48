"""What the families add to the configuration; see `kdp.config.registry`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kdp.config.base import Section
from kdp.config.data import SamplesConfig
from kdp.config.registry import register_data_kind, register_data_options, register_section


class PairedSamples(SamplesConfig):
    """HR images and the LR images made from them, in two folders."""

    hr: Path
    """Folder of the HR images."""
    lr: Path
    """Folder of the LR images."""
    lr_template: str | None = None
    """Name of the LR image of an HR image, with {stem} and {scale}; usual names are tried."""


class HrOnlySamples(SamplesConfig):
    """HR images; the LR images are made by MATLAB-style bicubic resizing."""

    hr: Path
    """Folder of the HR images."""
    cache: Path = Path(".cache/lr")
    """Folder that keeps the LR images."""


class FolderSamples(SamplesConfig):
    """Images in a folder for each class."""

    folder: Path
    """Folder that holds the folders of the classes."""


class SceneSamples(SamplesConfig):
    """Sounds of acoustic scenes with `meta.csv`, as TAU Urban Acoustic Scenes is published."""

    folder: Path | None = None
    """Folder that holds `meta.csv`; the environment variable TAU24_PATH if not given."""
    split: str | None = None
    """List of the clips; split100.csv to train on, test.csv to evaluate on, if not given."""


class BoxSamples(SamplesConfig):
    """Images with boxes, in the layout of VOC or of Ultralytics."""

    folder: Path
    """VOC: folder of the data set. YOLO: its YAML file."""
    split: str | None = None
    """Part of the data set; train to train on, val to evaluate on, if not given."""


class PatchOptions(Section):
    """Crops of training images."""

    patch_size: PositiveInt = 54
    """Side of an LR crop, in pixels."""


class MosaicOptions(Section):
    """Mosaics of four images."""

    mosaic: float = Field(1.0, ge=0, le=1)
    """Probability that a training sample is a mosaic of four images."""
    close_mosaic: int = Field(0, ge=0)
    """Number of epochs at the end without mosaics."""


class AudioConfig(Section):
    """How sounds are changed in training."""

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
    """How sounds are changed in training."""


class TileConfig(Section):
    """Large images are computed in overlapping tiles."""

    size: PositiveInt = 256
    """Side of a tile, in input pixels."""
    overlap: PositiveInt = 32
    """Overlap of neighbouring tiles, in input pixels."""

    @model_validator(mode="after")
    def _moves_on(self) -> TileConfig:
        if self.overlap >= self.size:
            raise ValueError(f"overlap ({self.overlap}) must be less than size ({self.size})")
        return self


class DetectConfig(Section):
    """Which boxes are shown."""

    confidence: float = Field(0.25, gt=0, lt=1)
    """Smallest probability of a box that is shown."""
    iou: float = Field(0.45, gt=0, lt=1)
    """IoU from which on the less probable of two boxes of a class is dropped."""


register_data_kind("paired", PairedSamples)
register_data_kind("hr_only", HrOnlySamples)
register_data_kind("folders", FolderSamples)
register_data_kind("scenes", SceneSamples)
register_data_kind("voc", BoxSamples)
register_data_kind("yolo", BoxSamples)
register_data_options(PatchOptions)
register_data_options(MosaicOptions)
register_data_options(AudioOptions)
register_section("tiles", TileConfig)
register_section("detect", DetectConfig)
