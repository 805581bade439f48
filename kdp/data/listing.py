"""Files of one kind in a folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from kdp.errors import KdpError


def list_files(folder: Path, suffixes: Collection[str], noun: str) -> list[Path]:
    """Paths of the files directly in a folder that end in one of the suffixes, sorted by name.

    Args:
        folder: where to look.
        suffixes: in lower case; names may have them in any.
        noun: what the files are, for messages: "image".

    Raises:
        KdpError: the folder does not exist or has no such file.
    """
    if not folder.is_dir():
        raise KdpError(f"the {noun} folder {folder} does not exist")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not paths:
        raise KdpError(f"no {noun}s in {folder} (looked for {', '.join(sorted(suffixes))})")
    return paths
