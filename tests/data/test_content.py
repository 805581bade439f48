"""Changes of files that samples are read from, and files with equal content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kdp.data import content
from kdp.data.content import fingerprint


@dataclass(frozen=True)
class Item:
    name: str
    files: tuple[Path, ...] = ()
    annotation: str = ""


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 9)
    return [Item(path.name, (path,)) for path in paths]


def rewritten(path: Path, data: bytes) -> None:
    """Other content, as old as before."""
    state = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_content_counts_whatever_the_time(items: Sequence[Item]) -> None:
    before = fingerprint(items)
    os.utime(items[1].files[0], ns=(5, 5))
    assert fingerprint(items) == before
    rewritten(items[1].files[0], b"123456789")
    assert fingerprint(items) != before


def test_order_names_annotations_and_files_count(items: list[Item]) -> None:
    first, second, third = items
    variants = [
        items,
        items[::-1],
        items[:2],
        [*items, Item("d", first.files)],
        [replace(first, annotation="1"), second, third],
        [replace(first, name="x"), second, third],
        [replace(first, files=(*first.files, *second.files)), second, third],
        [Item("a"), Item("b"), Item("c")],
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)


def test_the_files_of_large_data_sets_count_by_size_and_time(
    items: Sequence[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "WHOLE_BYTES", 20)
    monkeypatch.setattr(content, "sha256", None)  # nothing is read
    before, copied = fingerprint(items), fingerprint(items, times=False)
    os.utime(items[2].files[0], ns=(5, 5))
    assert fingerprint(items) != before
    assert fingerprint(items, times=False) == copied
    items[2].files[0].write_bytes(b"short")
    assert fingerprint(items, times=False) != copied
