"""Where `kdp infer` writes images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kdp.data.images import SUFFIXES
from kdp.errors import KdpError
from kdp.files import real_path
from kdp.stages.infer.sources import source_folders


def targets(sources: Sequence[Path], folder: Path | None, suffix: str) -> list[Path]:
    """Where the result of each image is written.

    Args:
        sources: the images.
        folder: for all of them (default: `<name of the image's folder>_<suffix>` in the current
            folder, so that nothing is ever written beside the input). A name that ends in .png is
            the file of a single image.
        suffix: of the default folder.

    Raises:
        KdpError: two results would have the same path, one would lie among the images, or the
            folder has the name of an image.
    """
    if file := _single_file(sources, folder):
        return [file]
    source_of: dict[str, Path] = {}
    # Both where a link lies and where it leads: a result must replace neither.
    occupied = source_folders(sources)
    plan = []
    for source in sources:
        target = (folder or _default_folder(source.parent, suffix)) / f"{source.stem}.png"
        other = source_of.setdefault(os.path.abspath(target), source)
        if other is not source:
            raise KdpError(f"{other} and {source} would both become {target}; rename one")
        if real_path(target.parent) in occupied:
            raise KdpError(f"{target} would lie among the images; choose another folder (--output)")
        plan.append(target)
    return plan


def _single_file(sources: Sequence[Path], output: Path | None) -> Path | None:
    """`output` where it is the file of one image; None where it is a folder."""
    if output is None or output.suffix.lower() not in SUFFIXES or output.is_dir():
        return None
    if len(sources) > 1:
        raise KdpError(f"{output} names an image, and there are {len(sources)}; give a folder")
    if output.suffix.lower() != ".png":
        raise KdpError(f"cannot write {output}: images are written as .png")
    if output.exists() and output.samefile(sources[0]):
        raise KdpError(f"{output} is the image itself; choose another name (--output)")
    return output


def _default_folder(folder: Path, suffix: str) -> Path:
    name = Path(os.path.abspath(folder)).name or "images"
    return Path(f"{name}_{suffix}")
