"""Configuration keys of detection and their default values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from kdp.config.base import CountOrZero, Section
from kdp.config.data import SamplesConfig
from kdp.config.registry import register_data_kind, register_data_options, register_section


class BoxSet(Section):
    """One of several data sets of images with boxes."""

    kind: Literal["voc", "yolo"] | None = None
    """Layout; the section's if not given."""
    folder: Path
    """VOC: folder of the data set. YOLO: its YAML file."""
    split: str | None = None
    """Part of the data set; the section's if not given."""


class BoxSource(NamedTuple):
    """A part of a data set: its layout, its folder or YAML file, and the split."""

    kind: str
    folder: Path
    split: str


class BoxSamples(SamplesConfig):
    """Images with boxes, in the layout of VOC or of Ultralytics; one data set or several."""

    folder: Path | None = None
    """VOC: folder of the data set. YOLO: its YAML file. This or sets is required."""
    split: str | None = None
    """Part of the data set; if not given, train for training and val for evaluation. VOC: all means
    every image in the folder except images that are also in an evaluation set."""
    sets: list[BoxSet] | None = Field(None, min_length=1)
    """Several data sets instead of a folder, in this order."""

    @model_validator(mode="after")
    def _one_or_several(self) -> BoxSamples:
        if (self.folder is None) == (self.sets is None):
            raise ValueError("give folder, or sets for several, and null for the other")
        return self

    def sources(self, split: str) -> list[BoxSource]:
        """The data sets, one or several.

        Args:
            split: where the configuration names none.
        """
        sets = self.sets or [BoxSet.model_validate({"folder": self.folder})]
        split = self.split or split
        return [BoxSource(s.kind or self.kind, s.folder, s.split or split) for s in sets]


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
    """Of two boxes of a class with at least this IoU, the less probable one is dropped."""


register_data_kind("voc", BoxSamples)
register_data_kind("yolo", BoxSamples)
register_data_options(MosaicOptions)
register_section("detect", DetectConfig)
