"""Atomic writes and file locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kdp.artifacts import Artifact, save
from kdp.errors import KdpError
from kdp.files import file_lock, write_atomic
from tests.artifact_helpers import ARCH
from tests.conftest import ROOT


@pytest.mark.parametrize("fault", ["os.fsync", "os.replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    path = tmp_path / "a.pth"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fault, fail)
    with pytest.raises(KdpError, match=r"a\.pth: no space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_past_the_size_limit_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save(path, Artifact({"w": torch.ones(3)}, ARCH))
    before = path.read_bytes()
    done = _python(
        f"""
        import pathlib, resource, torch
        from kdp.artifacts import Artifact, save
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        save(pathlib.Path({str(path)!r}), Artifact({{"w": torch.ones(100_000)}}))
        """
    )
    assert "KdpError: cannot write" in done.stderr
    assert "no space left" in done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.pth"
    with pytest.raises(KdpError, match=r"cannot write .*a\.pth"):
        write_atomic(path, b"new")
    with pytest.raises(KdpError, match=r"cannot write .*a\.pth"), file_lock(path):
        pass


def test_a_new_file_has_default_permissions(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    path.chmod(0o640)
    write_atomic(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "folder" / "target"
    link.symlink_to(target)
    for content in (b"first", b"second"):
        write_atomic(link, content)
        assert (link.is_symlink(), target.read_bytes()) == (True, content)
    assert list(target.parent.iterdir()) == [target]


def test_a_link_in_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(KdpError, match=r"cannot write .*a: Too many levels"):
        write_atomic(tmp_path / "a", b"")


def test_a_pipe_and_a_device_are_written_through(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert pipe.is_fifo()
    with pytest.raises(KdpError, match="cannot write /dev/full: no space left"):
        write_atomic(Path("/dev/full"), b"content")


def test_a_second_run_may_not_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "weights" / "a.pth"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD.format(path=str(path))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(KdpError, match=r"another run is writing .*a\.pth"), file_lock(path):
        pass
    holder.kill()  # A killed run holds nothing.
    holder.wait()
    with file_lock(path):
        pass
    assert not any(path.parent.iterdir())


_HOLD = """
import pathlib
from kdp.files import file_lock
with file_lock(pathlib.Path({path!r})):
    print("held", flush=True)
    input()
"""


def _python(code: str) -> subprocess.CompletedProcess[str]:
    lines = [line.removeprefix(" " * 8) for line in code.splitlines()]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
