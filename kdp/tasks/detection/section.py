"""What detection adds to the configuration."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from kdp.config.base import CountOrZero, Section
from kdp.config.data import SamplesConfig
from kdp.config.registry import register_data_kind, register_data_options, register_section


class BoxSamples(SamplesConfig):
    """Images with boxes, in the layout of VOC or of Ultralytics."""

    folder: Path
    """VOC: folder of the data set. YOLO: its YAML file."""
    split: str | None = None
    """Part of the data set; train to train on, val to evaluate on, if not given."""


class MosaicOptions(Section):
    """Mosaics of four images."""

    mosaic: float = Field(1.0, ge=0, le=1)
    """Probability that a training sample is a mosaic of four images."""
    close_mosaic: CountOrZero = 0
    """Number of epochs at the end without mosaics."""


class DetectConfig(Section):
    """Which boxes are shown."""

    confidence: float = Field(0.25, gt=0, lt=1)
    """Smallest probability of a box that is shown."""
    iou: float = Field(0.45, gt=0, lt=1)
    """IoU from which on the less probable of two boxes of a class is dropped."""


register_data_kind("voc", BoxSamples)
register_data_kind("yolo", BoxSamples)
register_data_options(MosaicOptions)
register_section("detect", DetectConfig)
