"""Links in a circle, and folders, pipes and broken links in the place of files, are named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdp.data.images import image_size
from kdp.errors import KdpError
from tests.conftest import ROOT
from tests.in_process import call_kdp

FACES = ROOT / "weights" / "face_mask_pruned_70.pth"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("link", "arguments"),
    [
        ("a.onnx", ("evaluate", "a.onnx")),
        ("a.onnx", ("compare", FACES, "a.onnx")),
        ("folder/a.png", ("infer", FACES, "folder", "--whole")),
        ("a.pth", ("inspect-weights", "a.pth")),
        ("w/face_mask.pth", ("train", "-c", "face_mask.yml", "output.dir=w", "device=cpu")),
        ("a.json", ("inspect-weights", FACES, "-o", "a.json")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_link_in_a_circle_is_one_line(link: str, arguments: tuple[str | Path, ...]) -> None:
    Path(link).parent.mkdir(exist_ok=True)
    Path(link).symlink_to(Path(link).name)
    ended = call_kdp(*arguments)
    assert (ended.code, ended.line[:5]) == (2, "kdp: "), ended.stderr
    assert Path(link).name in ended.line


def pipe(path: Path) -> None:
    os.mkfifo(path)


def broken_link(path: Path) -> None:
    path.symlink_to("b")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (Path.mkdir, "is a folder"),
        (pipe, "is no regular file"),
        (broken_link, "is a link to a file that does not exist"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_is_there_instead_of_a_file_is_named(make: Callable[[Path], Any], line: str) -> None:
    for name in ("a.pth", "a.pt", "a.yml"):
        make(Path(name))
    for name in ("a.pth", "a.pt"):
        assert call_kdp("inspect-weights", name).line == f"kdp: {name} {line}"
    assert f"configuration a.yml {line}; " in call_kdp("paths", "-c", "a.yml").line


@pytest.mark.parametrize(
    ("make", "reason"), [(Path.mkdir, "Is a directory"), (pipe, "it is no regular file")]
)
def test_an_image_that_is_no_file_is_not_called_corrupt(
    make: Callable[[Path], Any], reason: str
) -> None:
    make(Path("a.png"))
    with pytest.raises(KdpError, match=f"cannot read the image a.png: {reason}"):
        image_size(Path("a.png"))
