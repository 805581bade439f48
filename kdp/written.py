"""Which files kdp wrote: `.kdp/written.jsonl` of the current folder.

An artifact says by itself that kdp wrote it; a table, an image or an exported network does not.
So each of those is noted with its SHA-256, one line a file, the last line of a path counting. A
file that was changed since is no longer kdp's own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from kdp.errors import KdpError
from kdp.files import append_line, file_lock, read_regular, sha256, write_atomic
from kdp.log import log
from kdp.serialize import json_line

WRITTEN_FILE = Path(".kdp", "written.jsonl")
MAX_BYTES = 1_000_000
"""Size from which the notes of files that are gone or were written again are dropped."""
LOCK_TIMEOUT = 10.0


def write_output(path: Path, data: bytes) -> None:
    """Write a file that the user asked for, and note that kdp wrote it.

    Raises:
        KdpError: the file cannot be written.
    """
    write_atomic(path, data)
    _note(path, hashlib.sha256(data).hexdigest())


def note_written(path: Path) -> None:
    """Note a file that is complete, where another library wrote it."""
    _note(path, sha256(path))


def is_written_by_kdp(path: Path) -> bool:
    """Whether an existing file is noted, and still as kdp wrote it."""
    digest = _digests().get(_key(path))
    return digest is not None and digest == sha256(path)


def _note(path: Path, digest: str) -> None:
    """Append a line; a folder that cannot be written costs a warning alone."""
    if not path.is_file():  # a device or a pipe keeps nothing
        return
    try:
        with file_lock(WRITTEN_FILE, LOCK_TIMEOUT):
            append_line(WRITTEN_FILE, _line(_key(path), digest))
        if WRITTEN_FILE.stat().st_size > MAX_BYTES:
            _drop_stale()
    except KdpError as error:
        _warn(str(error))
    except OSError as error:
        _warn(f"cannot write {WRITTEN_FILE}: {error.strerror}")


def _drop_stale() -> None:
    with file_lock(WRITTEN_FILE, LOCK_TIMEOUT):
        notes = {key: digest for key, digest in _digests().items() if os.path.exists(key)}
        lines = [_line(key, digest) + "\n" for key, digest in notes.items()]
        write_atomic(WRITTEN_FILE, "".join(lines).encode())


def _line(key: str, digest: str) -> str:
    return json_line({"path": key, "sha256": digest})


def _key(path: Path) -> str:
    """Relative to the current folder, so that notes move along with it; links are followed."""
    return os.path.relpath(os.path.realpath(path))


def _digests() -> Mapping[str, str]:
    """SHA-256 by path; a line that a killed run did not finish is left out."""
    try:
        lines = read_regular(WRITTEN_FILE).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    digests: dict[str, str] = {}
    for line in lines:
        try:
            note = json.loads(line)
            digests[str(note["path"])] = str(note["sha256"])
        except (ValueError, KeyError, TypeError):
            continue
    return digests


@cache
def _warn(message: str) -> None:
    log.warning(f"{message}; kdp will not replace what it writes now without --overwrite")
