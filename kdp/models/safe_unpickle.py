"""Read foreign checkpoints that hold pickled objects without executing anything in them.

A pickle is a program: it names classes and functions to import and arguments to call them with, so
unpickling an untrusted file runs its author's code. torch's `weights_only=True` refuses such files
altogether, and an allow-list would have to grow with every class of every foreign program.

Here no name is ever imported. `find_class` maps four names (how torch writes tensors, ordered
dictionaries and sets) to classes of this file, and every other name to `OpaqueObject`, which
records the call instead of making it. The invariants that keep this safe:

- Every class that a pickle can instantiate is defined here and does nothing in its constructor.
- A pickle cannot set attributes of these classes (`_Sealed`), so it cannot change what later
  operations do.
- Opcodes that reach live objects of this process, or that allocate memory out of proportion to the
  file, are refused before the first one runs (`_check`).
- Sizes of tensors are checked against the bytes in the archive, which are stored uncompressed.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdp.errors import KdpError
from kdp.files import why_no_file
from kdp.sizes import repeated_names

DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
REFUSED = {"BYTEARRAY8", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}
"""Opcodes that are refused; see `_check`."""


class OpaqueObject:
    """A record of a foreign object that was not created: its constructor, arguments and state.

    Attributes:
        origin: module and name of the class or function.
        args: arguments of the call.
        state: attributes that the pickle would have set; usually a dictionary.
    """

    origin = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> OpaqueObject:
        self = super().__new__(cls)
        self.args, self.state = (*args, kwargs) if kwargs else args, {}
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: pickles may call `__new__` without `__init__`."""

    def __call__(self, *args: Any, **kwargs: Any) -> OpaqueObject:
        return OpaqueObject(self, *args, **kwargs)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Ignore an item of a foreign list; contents of foreign containers are not needed."""

    def extend(self, items: Any) -> None:
        """Ignored; see `append`."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Ignored; see `append`."""


class _Sealed:
    """Base of classes that a pickle may instantiate but not modify.

    Without `__setstate__`, the BUILD opcode would write any attribute that the pickle names.
    """

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for what has none")


class _Fields(dict[Any, Any]):
    """Replaces OrderedDict."""

    def __setstate__(self, state: Any) -> None:
        """Drop attributes such as a state dict's `_metadata`."""


class _Members(_Sealed, set[Any]):
    """Replaces set."""


class _Storage(_Sealed):
    """Flat numbers that one or more tensors view."""

    def __init__(self, flat: Tensor) -> None:
        self.flat = flat


class StoredTensor(_Sealed):
    """A tensor of the file; `tensor()` creates it."""

    storage: _Storage
    shape: tuple[tuple[int, ...], tuple[int, ...], int]

    def __new__(cls, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> StoredTensor:
        if type(storage) is not _Storage or type(size) is not tuple or type(stride) is not tuple:
            raise pickle.UnpicklingError("a tensor of no storage")
        if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
            raise pickle.UnpicklingError("a tensor of no shape")
        # Strides of 0 would allow a tensor of any size in a tiny file.
        if len(size) != len(stride) or math.prod(size) > storage.flat.numel():
            raise pickle.UnpicklingError("a tensor larger than its storage")
        self = super().__new__(cls)
        self.storage, self.shape = storage, (size, stride, offset)
        return self

    def tensor(self) -> Tensor:
        """The tensor, on the CPU, sharing memory with others of its storage.

        Raises:
            RuntimeError: it reaches beyond its storage.
        """
        return self.storage.flat.as_strided(*self.shape)


class _Parameter(_Sealed):
    """Replaces the function that wraps a tensor into a parameter."""

    def __new__(cls, data: Any, *rest: Any) -> Any:
        if type(data) is not StoredTensor:
            raise pickle.UnpicklingError("a parameter of no tensor")
        return data


KNOWN: dict[tuple[str, str], type] = {
    ("torch._utils", "_rebuild_tensor_v2"): StoredTensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("collections", "OrderedDict"): _Fields,
    ("builtins", "set"): _Members,
    ("__builtin__", "set"): _Members,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        pickled = _record(archive, f"{folder}data.pkl")
        _check(pickled)
        super().__init__(io.BytesIO(pickled))
        self.archive, self.folder = archive, folder
        self.stubs: dict[tuple[str, str], type] = {}
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of this file and import nothing."""
        key = (module, name)
        if key in KNOWN:
            return KNOWN[key]
        if key not in self.stubs:
            self.stubs[key] = type("Opaque", (OpaqueObject,), {"origin": f"{module}.{name}"})
        return self.stubs[key]

    def persistent_load(self, pid: Any) -> Any:
        """Read a storage, which lies beside the pickle in the archive."""
        kind, storage_class, key, _, count = pid
        if kind != "storage" or type(key) is not str or type(count) is not int:
            raise pickle.UnpicklingError("no storage")
        dtype = DTYPES[storage_class.origin]
        if key not in self.storages:
            data = _record(self.archive, f"{self.folder}data/{key}")
            if len(data) != count * dtype.itemsize:
                raise pickle.UnpicklingError("a storage of another size")
            empty = torch.empty(0, dtype=dtype)  # frombuffer takes no empty buffer
            flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else empty
            self.storages[key] = _Storage(flat)
        storage = self.storages[key]
        if storage.flat.dtype != dtype or storage.flat.numel() != count:
            raise pickle.UnpicklingError("a storage of another size")
        return storage


def _check(pickled: bytes) -> None:
    """Refuse opcodes that no checkpoint needs and that can do harm, before any of them runs.

    EXT opcodes fetch live classes from copyreg's extension registry. A huge memo index, or the
    length of a BYTEARRAY8, makes the unpickler allocate memory that the file does not pay for.
    """
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in REFUSED:
            raise pickle.UnpicklingError(f"the operation {opcode.name}")
        if opcode.name.endswith("PUT") and (argument or 0) > len(pickled):
            raise pickle.UnpicklingError("a memo without end")


def load_without_code(path: Path) -> Any:
    """Read a file of `torch.save` as plain values, `StoredTensor` and `OpaqueObject`.

    Raises:
        KdpError: the file is missing, truncated, or not written by `torch.save`.
    """
    if not path.is_file():
        raise KdpError(f"{path} {why_no_file(path)}")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise zipfile.BadZipFile("members overlap")
            if repeated_names(archive):
                raise zipfile.BadZipFile("members share a name")
            (pickled,) = (n for n in archive.namelist() if n.split("/")[1:] == ["data.pkl"])
            folder = pickled.removesuffix("data.pkl")
            order = f"{folder}byteorder"
            if order in archive.namelist() and _record(archive, order).decode() != sys.byteorder:
                raise KdpError(f"{path} was written on a machine of another byte order")
            return _Unpickler(archive, folder).load()
    except PermissionError as error:
        raise KdpError(f"{path} may not be read by this user") from error
    except KdpError:
        raise
    except Exception as error:  # a hostile pickle can raise any exception
        raise KdpError(f"{path} is truncated or not a checkpoint") from error


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a record. Compressed ones are refused: torch writes none, a zip bomb needs them."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(name)
    return archive.read(info)
