"""Checksums of `.pth`, `.pt` and ONNX files: a flipped bit is found before a weight is used.

torch writes zip archives, whose members have a CRC-32, and does not compare it on reading. kdp's
own files also end in a checksum of the whole file, which covers the headers between members and
takes one pass. ONNX files of kdp have such a checksum in their metadata.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

from kdp.errors import KdpError

_LABEL = b"kdp-crc32:"
_DIGITS = 8
UNKNOWN_CHECKSUM = _LABEL + b"0" * _DIGITS


class DamagedFileError(KdpError):
    """A file is not as it was written."""


def with_checksum(archive: bytes) -> bytes:
    """A zip archive with the CRC-32 of everything before it as the archive's comment.

    Args:
        archive: without a comment, as `torch.save` writes it.
    """
    length = (len(_LABEL) + _DIGITS).to_bytes(2, "little")
    # The last two bytes of an archive without a comment are the length of its comment.
    covered = archive[:-2] + length + _LABEL
    return covered + b"%08x" % zlib.crc32(covered)


def with_checksum_inside(content: bytes) -> bytes:
    """The content of a file that ends in `UNKNOWN_CHECKSUM`, or nearly so, with its CRC-32 there.

    For formats in which nothing may follow, such as the metadata of ONNX.
    """
    start = content.rindex(UNKNOWN_CHECKSUM) + len(_LABEL)
    return content[:start] + b"%08x" % zlib.crc32(content) + content[start + _DIGITS :]


def check_checksum_inside(path: Path, content: bytes) -> None:
    """Compare a file with the checksum inside it; one that has none is accepted.

    Raises:
        DamagedFileError: it differs.
    """
    start = content.rfind(_LABEL) + len(_LABEL)
    if start < len(_LABEL):
        return
    end = start + _DIGITS
    if content[start:end] != b"%08x" % zlib.crc32(
        content[: start - len(_LABEL)] + UNKNOWN_CHECKSUM + content[end:]
    ):
        raise DamagedFileError(f"{path} is damaged: its checksum differs; export it again")


def check_checksums(path: Path, source: Path) -> None:
    """Compare a zip archive with its checksums; a file that is no archive has none.

    Args:
        path: for messages.
        source: the file, whose members are not compressed (see `kdp.sizes.check_archive`).

    Raises:
        DamagedFileError: a checksum differs, or the archive's parts contradict one another.
        OSError: it cannot be read.
    """
    covers_all = _whole_file_matches(source)
    if covers_all is None:
        _check_members(path, source)
    elif not covers_all:
        raise DamagedFileError(f"{path} is damaged: its checksum differs; restore or delete it")


def _whole_file_matches(source: Path) -> bool | None:
    """Whether the checksum at the end of a file of kdp is right; None where there is none."""
    size, tail = source.stat().st_size, len(_LABEL) + _DIGITS
    crc = 0
    with source.open("rb") as file:
        file.seek(max(size - tail, 0))
        match = re.fullmatch(re.escape(_LABEL) + rb"([0-9a-f]{8})", file.read())
        if not match:
            return None
        file.seek(0)
        left = size - _DIGITS
        while left and (block := file.read(min(left, 1 << 20))):
            crc, left = zlib.crc32(block, crc), left - len(block)
    return crc == int(match[1], 16)


def _check_members(path: Path, source: Path) -> None:
    if not zipfile.is_zipfile(source):
        return
    try:
        with zipfile.ZipFile(source) as archive:
            # torch can be told to write no checksums (`set_crc32_options`); all are zero then.
            has_checksums = any(member.CRC for member in archive.infolist())
            damaged = archive.testzip() if has_checksums else None
    except Exception as error:  # damaged headers make zipfile raise nearly anything
        raise DamagedFileError(f"{path} is damaged: its archive is broken") from error
    if damaged:
        name = damaged.partition("/")[2]
        raise DamagedFileError(f"{path} is damaged: the checksum of {name} differs; restore it")
