"""Checkpoints of other programs that hold pickled objects, read without making any of them.

A pickle names classes and functions, and says what to call them with. Here every name but four
stands for a record of the call, `OpaqueObject`, and nothing of it is imported or run. The four are
how torch writes tensors, and ordered dictionaries and sets; they too are classes of this file.
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
"""Operations of pickle."""


class OpaqueObject:
    """What stands for a foreign object: who should have made it, of what, and its state.

    Attributes:
        origin: module and name of the class or function.
        args: what it was called with.
        state: what its attributes were to be; usually a dictionary.
    """

    origin = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> OpaqueObject:
        self = super().__new__(cls)
        self.args, self.state = (*args, kwargs) if kwargs else args, {}
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Everything is in `__new__`, which a pickle may call alone."""

    def __call__(self, *args: Any, **kwargs: Any) -> OpaqueObject:
        return OpaqueObject(self, *args, **kwargs)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Part of a foreign list: forgotten, as all that a foreign container holds."""

    def extend(self, items: Any) -> None:
        """See `append`."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """See `append`."""


class _Sealed:
    """What a pickle may make and not alter.

    A class without `__setstate__` would have its attributes set by the pickle.
    """

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("state for what has none")


class _Fields(dict[Any, Any]):
    """Stands for OrderedDict."""

    def __setstate__(self, state: Any) -> None:
        """Without the attributes, such as a state dict's `_metadata`."""


class _Members(_Sealed, set[Any]):
    """Stands for set."""


class _Storage(_Sealed):
    """The numbers of one or more tensors, in one row."""

    def __init__(self, flat: Tensor) -> None:
        self.flat = flat


class StoredTensor(_Sealed):
    """A view of the numbers of a file; `tensor()` gives it."""

    storage: _Storage
    shape: tuple[tuple[int, ...], tuple[int, ...], int]

    def __new__(cls, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> StoredTensor:
        if type(storage) is not _Storage or type(size) is not tuple or type(stride) is not tuple:
            raise pickle.UnpicklingError("a tensor of no storage")
        if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
            raise pickle.UnpicklingError("a tensor of no shape")
        # An expanded tensor may be as large as it likes at no cost to the file.
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
    """Stands for the function that makes a parameter of a tensor."""

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
        """One of this file's own classes; nothing is imported."""
        key = (module, name)
        if key in KNOWN:
            return KNOWN[key]
        if key not in self.stubs:
            self.stubs[key] = type("Inert", (OpaqueObject,), {"origin": f"{module}.{name}"})
        return self.stubs[key]

    def persistent_load(self, pid: Any) -> Any:
        """The numbers that the pickle points to, which are beside it in the file."""
        kind, storage, key, _, count = pid
        if kind != "storage" or type(key) is not str or type(count) is not int:
            raise pickle.UnpicklingError("no storage")
        dtype = DTYPES[storage.origin]
        if key not in self.storages:
            data = _record(self.archive, f"{self.folder}data/{key}")
            if len(data) != count * dtype.itemsize:
                raise pickle.UnpicklingError("a storage of another size")
            empty = torch.empty(0, dtype=dtype)  # frombuffer takes no empty buffer
            flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else empty
            self.storages[key] = _Storage(flat)
        found = self.storages[key]
        if found.flat.dtype != dtype or found.flat.numel() != count:
            raise pickle.UnpicklingError("a storage of another size")
        return found


def _check(pickled: bytes) -> None:
    """Refuse, before they are run, operations that no checkpoint needs and that can do harm.

    The registry of extensions holds classes of this process; a number of the memo, or a length,
    may ask for more memory than there is.
    """
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in REFUSED:
            raise pickle.UnpicklingError(f"the operation {opcode.name}")
        if opcode.name.endswith("PUT") and (argument or 0) > len(pickled):
            raise pickle.UnpicklingError("a memo without end")


def load_without_code(path: Path) -> Any:
    """What a file of `torch.save` holds: plain values, `StoredTensor` and `OpaqueObject`.

    Raises:
        KdpError: missing, truncated, or not a file of `torch.save`.
    """
    if not path.is_file():
        raise KdpError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
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
    except Exception as error:  # a hostile pickle may raise whatever its author likes
        raise KdpError(f"{path} is truncated or not a checkpoint") from error


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    """One record; compressed ones, which could be larger than any memory, torch does not write."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(name)
    return archive.read(info)
