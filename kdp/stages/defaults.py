"""The configuration of commands that need none: `compare`, `evaluate`, `export` and `infer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdp.config import Config
from kdp.config.compose import load_config
from kdp.errors import KdpError
from kdp.temporary import temporary_folder


def config_or_defaults(file: Path | None, overrides: Sequence[str]) -> Config:
    """A configuration; without a file, the schema's own defaults.

    Raises:
        KdpError: the file is missing, or a key or value does not fit the schema.
    """
    if file is not None:
        return load_config(file, overrides)
    with temporary_folder() as folder:
        defaults = folder / "compare.yml"
        defaults.write_text("output: {name: compare}\n")
        try:
            return load_config(defaults, overrides)
        except KdpError as error:
            raise KdpError(str(error).replace(str(defaults), "--set")) from error
