"""The images that `kdp infer` is given, and where its results go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from kdp.data.images import SUFFIXES, list_images
from kdp.errors import KdpError


def find_images(patterns: Sequence[str]) -> list[Path]:
    """The images of files, folders (without their sub-folders) and glob patterns, each once.

    Raises:
        KdpError: a file is missing, a folder has no image, or a pattern matches none.
    """
    paths = [path for pattern in patterns for path in _expand(pattern)]
    return list({os.path.abspath(path): path for path in paths}.values())


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
    source_folders = {p for s in sources for p in (s.parent.resolve(), s.resolve().parent)}
    plan = []
    for source in sources:
        target = (folder or _default_folder(source.parent, suffix)) / f"{source.stem}.png"
        other = source_of.setdefault(os.path.abspath(target), source)
        if other is not source:
            raise KdpError(f"{other} and {source} would both become {target}; rename one")
        if target.parent.resolve() in source_folders:
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


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        return list_images(path)
    if path.is_file():  # before the pattern: a name may hold brackets
        return [path]
    if not any(character in pattern for character in "*?["):
        raise KdpError(f"there is no image and no folder {path}")
    matches = (Path(match) for match in sorted(glob(pattern, recursive=True)))
    images = [m for m in matches if m.suffix.lower() in SUFFIXES and m.is_file()]
    if not images:
        raise KdpError(f"no image matches {pattern} (looked for {', '.join(sorted(SUFFIXES))})")
    return images


def _default_folder(folder: Path, suffix: str) -> Path:
    name = Path(os.path.abspath(folder)).name or "images"
    return Path(f"{name}_{suffix}")
