"""What a small file may grow to, checked before it grows.

A file of a few kilobytes can stand for any amount of memory: compressed members, tensors that
repeat one number, members of an archive that overlap, values that are referred to again and again.
"""

from __future__ import annotations

import mmap
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdp.errors import KdpError, join_names
from kdp.node_count import TooLargeError, count_nodes

MAX_NODES = 10_000_000
"""Keys and values of a checkpoint, with all that is referred to."""
ALIASES = 16
"""How often tensors may share the numbers of a file, on average: tied weights do."""
DTYPES = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64}
    | {torch.complex128, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)
"""Types of numbers that torch computes with; it only stores float8 and packed integers."""
_GROWING = (b"\nbytearray\n", b"\nencode\n")
"""Names in a pickle that torch calls and that make much of little: `bytearray(10**12)`, and a
codec applied to its own result."""


def check_archive(path: Path, source: Path) -> None:
    """Refuse a file of `torch.save` that reading would inflate.

    Args:
        path: for messages.
        source: the file.

    Raises:
        KdpError: members are compressed, overlap or share a name, which torch never writes, or the
            pickle calls a function that makes much of little.
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    if not zipfile.is_zipfile(source):
        _check_names(path, source)
        return
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        if repeated := repeated_names(archive):
            raise KdpError(
                f"{path} is damaged: its archive holds {join_names(repeated, 3)} more than once, "
                "and programs differ in which one they read"
            )
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise KdpError(f"{path} holds compressed tensors, which torch does not write: refused")
        if sum(member.file_size for member in members) > source.stat().st_size:
            raise KdpError(f"{path} is damaged: it is smaller than what it says it holds")
        pickles = [_pickled(archive, m) for m in members if m.filename.endswith("data.pkl")]
        if any(name in pickled for pickled in pickles for name in _GROWING):
            raise KdpError(f"{path} holds more than tensors: refused")


def repeated_names(archive: zipfile.ZipFile) -> list[str]:
    """Names of several members: Python reads the last of them, torch another, whatever the case."""
    names = [name.casefold() for name in archive.namelist()]
    return [name for name, count in Counter(names).items() if count > 1]


def _pickled(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member without its checksum, of which torch can be told to write none."""
    unchecked = copy(member)
    del unchecked.CRC
    return archive.open(unchecked).read()


def _check_names(path: Path, source: Path) -> None:
    """The same for the older format, a pickle with the numbers behind it."""
    if not source.stat().st_size:
        return
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        if any(view.find(name) >= 0 for name in _GROWING):
            raise KdpError(f"{path} holds more than tensors: refused")


def check_content(path: Path, content: Any, file_bytes: int) -> None:
    """Refuse values of a checkpoint that stand for more than the file holds.

    Args:
        path: for messages.
        content: what `torch.load` returned.
        file_bytes: size of the file.

    Raises:
        KdpError: a tensor is expanded, sparse, quantised or without numbers, or the values are
            nested too deeply or too many.
    """
    tensors: list[Tensor] = []
    try:
        count_nodes(content, lambda value: _inside(value, tensors), MAX_NODES)
    except TooLargeError as error:
        raise KdpError(f"{path} is refused: {error}") from error
    check_tensors(path, tensors, file_bytes)


def check_tensors(path: Path, tensors: Iterable[Tensor], file_bytes: int) -> None:
    """Refuse tensors that have more numbers than the file, or numbers of types without arithmetic.

    Raises:
        KdpError: one has, or all of them together have many times as many.
    """
    total = 0
    for tensor in tensors:
        dense = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested
        if not dense or tensor.device.type != "cpu":
            raise KdpError(f"{path} holds a tensor that is not dense: refused")
        if tensor.dtype not in DTYPES:
            name = str(tensor.dtype).removeprefix("torch.")
            raise KdpError(f"{path} holds numbers of the type {name}, which kdp does not read")
        bytes_needed = tensor.numel() * tensor.element_size()
        total += bytes_needed
        if bytes_needed > tensor.untyped_storage().nbytes() or bytes_needed > file_bytes:
            raise KdpError(f"{path} holds a tensor that is larger than its numbers: refused")
    if total > ALIASES * file_bytes:
        raise KdpError(f"{path} holds {len_text(total)} of tensors in {len_text(file_bytes)}")


def len_text(count: int) -> str:
    """A number of bytes in words."""
    return f"{count / 1e6:,.1f} MB"


def _inside(value: Any, tensors: list[Tensor]) -> list[Any]:
    """The values inside a value of a checkpoint; collects tensors."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return []
    if isinstance(value, Mapping):
        # A pickle can give an OrderedDict attributes that hide its methods.
        if isinstance(value, OrderedDict) and set(vars(value)) - {"_metadata"}:
            raise TooLargeError("it holds a mapping that is none")
        return [*dict.keys(value), *dict.values(value)]  # type: ignore[arg-type]
    return list(value) if isinstance(value, (list, tuple, set)) else []
