"""Writing files so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kdp.errors import KdpError
from kdp.log import log_once
from kdp.shipped import shipped_weight
from kdp.temporary import LOCK, remove_abandoned, temporary_file

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MAX_NAME = 240
"""Bytes of a name that leave room for the dot and the ending of a lock; names end at 255."""
_MOMENT = 0.2
"""Seconds for which another run may hold a lock only to see whether somebody else does."""


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: temporary name in the same folder, fsync, rename, fsync the folder.

    A file keeps its mode, a symbolic link keeps its place: the file it leads to is replaced. What
    is no regular file, such as /dev/null or a named pipe, is written through.

    Raises:
        KdpError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    try:
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            path.write_bytes(data)
            return
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, data, mode)
    except OSError as error:
        reason = "no space left" if error.errno in _FULL else error.strerror
        raise KdpError(f"cannot write {path}: {reason}; nothing was changed") from error


def _mode(path: Path) -> int | None:
    """Type and permissions of what a path leads to; None where there is nothing yet."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _replace(path: Path, data: bytes, mode: int | None) -> None:
    with temporary_file(path) as (temporary, file):
        if mode is not None:
            os.fchmod(file.fileno(), stat.S_IMODE(mode))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power failure, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file; one that a killed run did not finish is ended first.

    Args:
        path: of the file; it is made if it does not exist.
        line: without a line break.

    Raises:
        OSError: the file cannot be written.
    """
    if path.exists():
        check_regular(path)
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        ending = b"\n" if file.read() not in (b"", b"\n") else b""
        file.write(ending + line.encode() + b"\n")


@contextmanager
def file_lock(path: Path, timeout: float = 0) -> Iterator[None]:
    """Hold `path` against other runs of kdp until the block ends.

    Args:
        path: the file or folder that this run writes; the lock is a hidden file beside it.
        timeout: seconds to wait for another run to let go.

    Raises:
        KdpError: another run holds it, or its folder cannot be written.
    """
    lock = FileLock(_lock_file(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        lock.acquire(timeout=max(timeout, _MOMENT))
    except Timeout as error:
        raise KdpError(f"another run is writing {path}; wait for it or stop it") from error
    except OSError as error:
        raise KdpError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield
    finally:
        # Unlinked while it is held: whoever opened the file meanwhile sees that it has no name left
        # and starts over, so two runs never hold locks on two files of one name.
        _lock_file(path).unlink(missing_ok=True)
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a run of kdp holds `path` now."""
    if not _lock_file(path).exists():
        return False
    try:
        with file_lock(path):
            return False
    except KdpError:
        return True


def _lock_file(path: Path) -> Path:
    name = path.name if len(os.fsencode(path.name)) < _MAX_NAME else _digest(os.fsencode(path.name))
    return path.with_name(f".{name}{LOCK}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def input_path(path: Path) -> Path:
    """The file to read for an input as it was written.

    Inputs lie where they are written, from the current folder, with one exception: a weight that
    comes with kdp, spelled `weights/<name>`, is read from the package where it is not here.
    """
    if path.exists():
        return path
    shipped = shipped_weight(path)
    if shipped is None or not shipped.is_file():
        return path
    log_once(f"{path} is not in this folder: the one that comes with kdp is read")
    return shipped


def check_regular(path: Path) -> os.stat_result:
    """The state of a file that may be read to its end, which a device or a pipe may not have.

    Raises:
        OSError: it is a folder, a device or a pipe, or it is not there.
    """
    state = path.stat()
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return state


def read_regular(path: Path, most: int = 10_000_000) -> bytes:
    """The content of a file that somebody else wrote and that should be small.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read, is larger, or is no regular file.
    """
    state = check_regular(path)
    if state.st_size > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return path.read_bytes()


def why_no_file(path: Path) -> str:
    """The end of a message about a path that is no file: what it is instead."""
    if path.is_dir():
        return "is a folder"
    if path.exists():
        return "is no regular file"
    return "is a link to a file that does not exist" if path.is_symlink() else "does not exist"


def real_path(path: Path) -> Path:
    """The absolute path without links; `Path.resolve` fails for links in a circle."""
    return Path(os.path.realpath(path))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the bytes of an input (see `input_path`).

    Raises:
        KdpError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        check_regular(input_path(path))
        with input_path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise KdpError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def free_bytes(path: Path) -> int:
    """Room on the disk that a file or folder is on, or will be."""
    return shutil.disk_usage(nearest_folder(path)).free


def check_writable(folder: Path) -> None:
    """Make sure that files can be made in a folder, which may not be there yet.

    Raises:
        KdpError: they cannot.
    """
    nearest = nearest_folder(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise KdpError(f"{folder} cannot be written")


def nearest_folder(path: Path) -> Path:
    """The path itself, or the nearest one above it that exists."""
    path = real_path(path)
    while not path.exists():
        path = path.parent
    return path
