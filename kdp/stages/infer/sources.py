"""The files that `kdp infer` is given."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from glob import glob
from pathlib import Path

from kdp.data.listing import list_files
from kdp.errors import KdpError
from kdp.files import real_path


def find_files(patterns: Sequence[str], suffixes: Collection[str], noun: str) -> list[Path]:
    """The files of names, folders (without their sub-folders) and glob patterns, each once.

    Args:
        patterns: names and patterns; a file that is named may have any suffix.
        suffixes: of the files to take from folders and patterns.
        noun: what they are, for messages: "image".

    Raises:
        KdpError: a file is missing, or a folder or pattern has none.
    """
    paths = [path for pattern in patterns for path in _expand(pattern, suffixes, noun)]
    return list({os.path.abspath(path): path for path in paths}.values())


def source_folders(sources: Sequence[Path]) -> set[Path]:
    """The folders in which files lie and to which they lead, if they are links."""
    return {p for s in sources for p in (real_path(s.parent), real_path(s).parent)}


def _expand(pattern: str, suffixes: Collection[str], noun: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        return list_files(path, suffixes, noun)
    if path.is_file():  # before the pattern: a name may hold brackets
        return [path]
    if not any(character in pattern for character in "*?["):
        raise KdpError(f"there is no {noun} and no folder {path}")
    matches = (Path(match) for match in sorted(glob(pattern, recursive=True)))
    files = [m for m in matches if m.suffix.lower() in suffixes and m.is_file()]
    if not files:
        raise KdpError(f"no {noun} matches {pattern} (looked for {', '.join(sorted(suffixes))})")
    return files
