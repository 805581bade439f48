"""What classification adds to the configuration."""

from __future__ import annotations

from pathlib import Path

from kdp.config.data import SamplesConfig
from kdp.config.registry import register_data_kind


class FolderSamples(SamplesConfig):
    """Images in a folder for each class."""

    folder: Path
    """Folder that holds the folders of the classes."""


register_data_kind("folders", FolderSamples)
