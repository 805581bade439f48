"""Small files that stand for much memory are refused before they grow."""

from __future__ import annotations

import io
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.models.loading import load_network

Content = dict[str, Any]


class _Call:
    """Pickled as a call of a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def archive(path: Path, pickled: bytes) -> None:
    """An archive as torch writes it, whose pickle is another."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickled)
        file.writestr("x/byteorder", "little")
        file.writestr("x/version", "3\n")


def rewritten(path: Path, content: Content, method: int = zipfile.ZIP_STORED) -> None:
    """`torch.save`, with the members compressed by a method."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", method) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))


def deflated(path: Path) -> None:
    rewritten(path, {"w": torch.zeros(1 << 20)}, zipfile.ZIP_DEFLATED)


def bzipped(path: Path) -> None:
    rewritten(path, {"w": torch.zeros(1 << 20)}, zipfile.ZIP_BZIP2)


def overlapping(path: Path) -> None:
    """Many members that are one: the directory names the same bytes again and again."""
    rewritten(path, {"w": torch.zeros(1 << 10)})
    with zipfile.ZipFile(path, "a") as file:
        (data,) = (info for info in file.infolist() if info.filename.endswith("data/0"))
        file.filelist.extend([data] * 1000)
        file._didModify = True  # type: ignore[attr-defined]


def expanded(path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, path)


def expanded_in_the_older_format(path: Path) -> None:
    tensor = torch.zeros(1).expand(10**6, 10**6)
    torch.save({"w": tensor}, path, _use_new_zipfile_serialization=False)


def overlapping_rows(path: Path) -> None:
    torch.save({"w": torch.zeros(2000).as_strided((1000, 1000), (1, 1))}, path)


def shared_by_many(path: Path) -> None:
    tensor = torch.zeros(1 << 16)
    torch.save({f"w{i}": tensor for i in range(1000)}, path)


def sparse(path: Path) -> None:
    torch.save({"w": torch.eye(2).to_sparse()}, path)


def without_numbers(path: Path) -> None:
    torch.save({"w": torch.empty(10**6, 10**6, device="meta")}, path)


def allocating(path: Path) -> None:
    archive(path, pickle.dumps({"w": _Call(bytearray, 10**12)}, protocol=2))


def allocating_in_the_older_format(path: Path) -> None:
    torch.save({"w": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes() + pickle.dumps(_Call(bytearray, 10**12), protocol=2))


def encoding_again_and_again(path: Path) -> None:
    import _codecs

    value: Any = "a"
    for _ in range(60):
        value = _Call(_codecs.encode, value, "hex")
    archive(path, pickle.dumps({"w": value}, protocol=2))


def record_of_references(path: Path) -> None:
    value: Any = "a"
    for _ in range(60):
        value = [value, value]
    content = {"format": "kdp", "version": 2, "arch": None, "params": {}, "record": {"x": value}}
    torch.save(content, path)


def deeply_nested(path: Path) -> None:
    value: Any = []
    for _ in range(200):
        value = [value]
    torch.save({"w": torch.ones(1), "x": value}, path)


def inside_itself(path: Path) -> None:
    value: list[Any] = []
    value.append(value)
    torch.save({"w": torch.ones(1), "x": value}, path)


HOSTILE = [
    deflated,
    bzipped,
    overlapping,
    expanded,
    expanded_in_the_older_format,
    overlapping_rows,
    shared_by_many,
    sparse,
    without_numbers,
    allocating,
    allocating_in_the_older_format,
    encoding_again_and_again,
    record_of_references,
    deeply_nested,
    inside_itself,
]


@pytest.mark.parametrize("write", HOSTILE)
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_what_would_grow_is_refused_at_once(
    tmp_path: Path, write: Callable[[Path], None], suffix: str
) -> None:
    path = tmp_path / f"w{suffix}"
    write(path)
    started = time.perf_counter()
    with pytest.raises(KdpError):
        load_network(path)
    assert time.perf_counter() - started < 5


def test_tied_and_transposed_weights_are_read(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    path = tmp_path / "w.pth"
    torch.save({"a": weight, "b": weight, "c": weight.T, "d": weight[:, :2]}, path)
    params = load(path).params
    assert torch.equal(params["c"], params["b"].T)
    assert torch.equal(params["d"], params["a"][:, :2])


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"])
def test_numbers_that_torch_only_stores_are_refused_by_their_type(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"w": torch.zeros(4, dtype=torch.uint8).view(getattr(torch, name))}, path)
    with pytest.raises(KdpError, match=f"holds numbers of the type {name}, which kdp does not"):
        load_network(path)
