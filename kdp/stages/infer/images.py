"""The pictures a stage is given, and where what becomes of them goes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from kdp.data.images import SUFFIXES, list_images
from kdp.errors import KdpError


@dataclass(frozen=True)
class Inference:
    """What became of the pictures.

    Attributes:
        written: the files, in the order of the pictures.
        unreadable: what is wrong with each picture that was left out.
    """

    written: list[Path]
    unreadable: list[str]


def find_images(given: Sequence[str]) -> list[Path]:
    """The pictures of files, folders (not of folders within) and glob patterns, each once.

    Raises:
        KdpError: there is no such file, no picture in a folder, or nothing that a pattern matches.
    """
    found = [path for one in given for path in _expand(one)]
    return list({os.path.abspath(path): path for path in found}.values())


def targets(sources: Sequence[Path], folder: Path | None, suffix: str) -> list[Path]:
    """Where the output of each picture goes.

    Args:
        sources: the pictures.
        folder: for all of them (default: `photos_<suffix>` beside the folder `photos` of each).
        suffix: of the default folder.

    Raises:
        KdpError: two would become the same file, or one would lie among the pictures.
    """
    taken: dict[str, Path] = {}
    places = {place for s in sources for place in (s.parent.resolve(), s.resolve().parent)}
    plan = []
    for source in sources:
        target = (folder or _beside(source.parent, suffix)) / f"{source.stem}.png"
        other = taken.setdefault(os.path.abspath(target), source)
        if other is not source:
            raise KdpError(f"{other} and {source} would both become {target}; rename one")
        if target.parent.resolve() in places:
            raise KdpError(f"{target} would lie among the pictures; choose another folder (--to)")
        plan.append(target)
    return plan


def _expand(given: str) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        return list_images(path)
    if path.is_file():
        return [path]
    if not any(character in given for character in "*?["):
        raise KdpError(f"there is no picture and no folder {path}")
    matches = (Path(match) for match in sorted(glob(given, recursive=True)))
    found = [m for m in matches if m.suffix.lower() in SUFFIXES and m.is_file()]
    if not found:
        raise KdpError(f"no picture matches {given} (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def _beside(folder: Path, suffix: str) -> Path:
    if folder.name in ("", ".."):
        folder = Path(os.path.abspath(folder))
    return folder.parent / f"{folder.name}_{suffix}"
