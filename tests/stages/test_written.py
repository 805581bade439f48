"""Outputs replace what kdp wrote before, and nothing else, unless `--overwrite` is given."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kdp import written
from kdp.cli import app
from kdp.errors import KdpError
from kdp.stages.replacing import check_targets
from kdp.written import is_written_by_kdp, note_written, write_output
from tests.conftest import ROOT

FACE = str(ROOT / "weights" / "face_mask.pth")


def kdp(*arguments: str) -> None:
    """Run a command in this process."""
    app(arguments, standalone_mode=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an image in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(written, "WRITTEN_FILE", Path(".kdp", "written.jsonl"))
    cv2.imwrite("image.png", np.zeros((40, 40, 3), np.uint8))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("inspect-weights", FACE, "-o", "out.json"), "out.json"),
        (("compare", FACE, FACE, "-o", "out.md"), "out.md"),
        (("compare", FACE, FACE, "-o", "new.csv", "-o", "out.json"), "out.json"),
        (("compare", FACE, FACE, "--plot", "out.png"), "out.png"),
        (("compare", FACE, FACE, "--images", "out"), "out/any.png"),
        (("evaluate", FACE, "-o", "out.csv"), "out.csv"),
        (("experiments", "-o", "out.json"), "out.json"),
        (("reproduce", "some", "-o", "out.csv"), "out.csv"),
        (("export", FACE, "-o", "out.onnx"), "out.onnx"),
        (("export", FACE, "--format", "torchscript", "-o", "out.pt"), "out.pt"),
        (("infer", FACE, "image.png", "-o", "out"), "out/image.png"),
        (("infer", FACE, "--camera", "0", "--headless", "-o", "out.mp4"), "out.mp4"),
    ],
)
def test_no_command_replaces_a_file_of_the_user(
    here: Path, command: tuple[str, ...], name: str
) -> None:
    target = here / name
    target.parent.mkdir(exist_ok=True)
    target.write_text("mine")
    with pytest.raises(KdpError, match=rf"{name} would be replaced, and kdp did not write it"):
        kdp(*command)
    assert target.read_text() == "mine"
    assert not (here / "new.csv").exists()


def test_a_command_replaces_what_it_wrote_before(here: Path) -> None:
    for _ in range(2):
        kdp("inspect-weights", FACE, "-o", "out.json")
    (here / "out.json").write_text("{}")
    with pytest.raises(KdpError, match="or it was changed since: choose another --output"):
        kdp("inspect-weights", FACE, "-o", "out.json")
    kdp("inspect-weights", FACE, "-o", "out.json", "--overwrite")
    assert is_written_by_kdp(here / "out.json")


def test_notes_move_along_with_the_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = here / "old", here / "new"
    old.mkdir()
    monkeypatch.chdir(old)
    write_output(Path("a.md"), b"a")
    old.rename(new)
    monkeypatch.chdir(new)
    check_targets([Path("a.md"), new / "a.md"])


def test_a_link_is_followed(here: Path) -> None:
    (here / "target.md").write_text("mine")
    (here / "link.md").symlink_to("target.md")
    with pytest.raises(KdpError, match=r"link\.md would be replaced"):
        check_targets([Path("link.md")])
    write_output(Path("link.md"), b"new")
    assert (here / "link.md").is_symlink()
    assert (here / "target.md").read_bytes() == b"new"
    check_targets([Path("link.md"), Path("target.md")])


def test_a_folder_is_no_target(here: Path) -> None:
    for overwrite in (False, True):
        with pytest.raises(KdpError, match="is a folder"):
            check_targets([here], overwrite)


def test_a_device_is_always_a_target(here: Path) -> None:
    kdp("inspect-weights", FACE, "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()
    assert not written.WRITTEN_FILE.exists()


def test_damaged_notes_are_left_out(here: Path) -> None:
    write_output(Path("a.md"), b"a")
    with written.WRITTEN_FILE.open("a") as file:
        file.write('[1]\n{"path": "a.md"}\n{"pa')
    assert is_written_by_kdp(Path("a.md"))


def test_notes_of_files_that_are_gone_are_dropped(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "MAX_BYTES", 1000)
    write_output(Path("kept.md"), b"kept")
    for number in range(20):
        write_output(Path("a.md"), str(number).encode())
    assert written.WRITTEN_FILE.stat().st_size < 1100
    assert is_written_by_kdp(Path("kept.md"))
    assert is_written_by_kdp(Path("a.md"))


def test_notes_that_cannot_be_written_cost_a_warning(here: Path, messages: list[str]) -> None:
    written._warn.cache_clear()
    (here / ".kdp").touch()
    write_output(Path("a.md"), b"a")
    note_written(Path("a.md"))
    assert (here / "a.md").read_bytes() == b"a"
    (message,) = messages
    assert message.startswith("cannot write .kdp/written.jsonl")
    assert message.endswith("kdp will not replace what it writes now without --overwrite")
