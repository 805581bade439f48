"""Temporary files and folders, recognised by their names, that the next run removes after a kill.

Whoever makes one holds a lock on it until it has its final name or is gone. The kernel releases
the locks of a process that dies, so what can be locked belongs to no run any more. Locks tell more
than process numbers, which are used again and differ between containers.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY, LOCK = ".kdp-tmp", ".kdp-lock"
_OWN = re.compile(r"\..+\.kdp-(tmp|lock)(\.\w+)?", re.DOTALL)
_MAX_BYTES = 150
"""Of the final name within a temporary one: names end at 255 bytes."""
_SHARE = 0.1
"""Largest share of the time that looking for abandoned files takes, in a folder of many files."""
_next_look: dict[Path, float] = {}


@contextmanager
def temporary_file(path: Path, ending: str = "") -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside `path`, open for writing; removed at the end unless it was renamed.

    Args:
        path: the final name.
        ending: of the temporary name, for libraries that tell formats by it.

    Raises:
        OSError: the folder cannot be written.
    """
    remove_abandoned(path.parent)
    temporary, handle = _create(path, ending)
    try:
        with os.fdopen(handle, "wb") as file:
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(path: Path | None = None) -> Iterator[Path]:
    """A new folder; removed with its content at the end unless it was renamed.

    Args:
        path: the final name (default: a folder for temporary files of the system).

    Raises:
        FileExistsError: another run is filling a folder of this name.
        OSError: it cannot be made.
    """
    place, mode = (tempfile.gettempdir(), 0o700) if path is None else (path.parent, 0o777)
    remove_abandoned(Path(place))
    name = _temporary_name("kdp", "") if path is None else f".{path.name}{TEMPORARY}"
    folder, owner = Path(place, name), os.getpid()
    handle = _create_folder(folder, mode)
    try:
        yield folder
    finally:
        with suppress(OSError):
            # After it was renamed, another run may use its name; a fork ends before this process.
            if _is_at(handle, folder) and os.getpid() == owner:
                shutil.rmtree(folder)
        os.close(handle)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed runs of kdp have left in a folder, and nothing else."""
    started = time.monotonic()
    if started < _next_look.get(folder, 0.0):
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _OWN.fullmatch(entry.name):
                _remove_if_abandoned(Path(entry.path), entry.is_dir(follow_symlinks=False))
    now = time.monotonic()
    _next_look[folder] = now + (now - started) / _SHARE


def _remove_if_abandoned(path: Path, is_folder: bool) -> None:
    flags = os.O_RDONLY if is_folder else os.O_RDWR
    with suppress(OSError):  # it is somebody else's, or gone
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A lock file that was removed and made again meanwhile is another file of one name.
            if _is_at(handle, path):
                shutil.rmtree(path) if is_folder else path.unlink()
        finally:
            os.close(handle)


def _temporary_name(name: str, ending: str) -> str:
    short = os.fsencode(name)[:_MAX_BYTES].decode(errors="ignore")
    return f".{short}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}{ending}"


def _create(path: Path, ending: str) -> tuple[Path, int]:
    while True:
        temporary = path.with_name(_temporary_name(path.name, ending))
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        _lock(handle)
        # In the moment before it is locked, another run may take it for abandoned.
        if os.fstat(handle).st_nlink:
            return temporary, handle
        os.close(handle)


def _create_folder(path: Path, mode: int) -> int:
    while True:
        path.mkdir(mode)
        with suppress(FileNotFoundError):
            handle = os.open(path, os.O_RDONLY)
            _lock(handle)
            with suppress(FileNotFoundError):
                if _is_at(handle, path):
                    return handle
            os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))


def _lock(handle: int) -> None:
    with suppress(OSError):  # a file system without locks: nothing is taken for abandoned there
        fcntl.flock(handle, fcntl.LOCK_EX)
