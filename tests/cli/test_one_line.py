"""Every error ends in one line and an exit code: 2 for the user's, 1 for a bug of kdp."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kdp.stages import inspect_weights
from tests.conftest import ROOT
from tests.in_process import call_kdp

FACES = ROOT / "weights" / "face_mask.pth"


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(inspect_weights, "inspect", fail)


@pytest.mark.parametrize(
    "error",
    [TypeError("no\nlines"), KeyError("key"), RecursionError(), RuntimeError("size mismatch")],
    ids=lambda error: type(error).__name__,
)
def test_a_bug_is_one_line_that_says_so(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    failing(monkeypatch, error)
    ended = call_kdp("inspect-weights", FACES)
    assert ended.code == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"kdp: internal error: {type(error).__name__}")
    assert ended.stderr.endswith("this is a bug of kdp, --debug shows the traceback\n")


def test_debug_shows_the_traceback_of_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, TypeError("wrong"))
    with pytest.raises(TypeError, match="wrong"):
        call_kdp("--debug", "inspect-weights", FACES)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_says_what_to_lower(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    failing(monkeypatch, error)
    ended = call_kdp("inspect-weights", FACES)
    assert (ended.code, ended.stderr.count("\n")) == (2, 1)
    assert "memory; lower the batch size" in ended.stderr


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.EISDIR, errno.EIO])
def test_an_error_of_the_system_names_its_path(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing(monkeypatch, OSError(number, os.strerror(number), "some/path"))
    ended = call_kdp("inspect-weights", FACES)
    assert ended.code == 2
    assert ended.stderr == f"kdp: some/path: {os.strerror(number)} (--debug shows where)\n"


class _Full(io.BytesIO):
    """A file that takes nothing, as on a full disk."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, data: Any) -> int:
        raise self.error


def _output(error: OSError) -> io.TextIOWrapper:
    return io.TextIOWrapper(_Full(error), "utf-8")


def test_output_that_cannot_be_written_is_one_line() -> None:
    full = _output(OSError(errno.ENOSPC, "No space left on device"))
    ended = call_kdp("configs", "list", stdout=full)
    assert ended.code == 2
    assert ended.stderr == "kdp: No space left on device (--debug shows where)\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    ended = call_kdp("configs", "list", stdout=_output(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert (ended.code, ended.stderr) == (1, "")


@pytest.mark.parametrize("command", ["inspect-weights", "evaluate", "compare"])
def test_files_are_written_before_a_reader_closes_the_pipe(command: str, tmp_path: Path) -> None:
    closed = _output(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    network, output = ROOT / "weights/face_mask_pruned_70.pth", tmp_path / "out.json"
    ended = call_kdp(command, network, "-o", output, "--format", "json", stdout=closed)
    assert ended.code == 1
    assert json.loads(output.read_text())


LONG = "n" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect-weights", f"{LONG}.pth"),
        ("inspect-weights", f"{LONG}.pt"),
        ("inspect-weights", "folder"),
        ("evaluate", "folder"),
        ("compare", f"{LONG}.onnx"),
        ("compare", "folder.onnx"),
        ("evaluate", FACES, "-c", LONG),
        ("evaluate", FACES, "-c", "folder"),
        ("infer", FACES, LONG),
        ("infer", FACES, "image.png", "--whole", "-o", LONG),
        ("infer", FACES, "image.png", "--whole", "-o", "file"),
        ("infer", FACES, "image.png", "--whole", "-o", f"{LONG}.mp4"),
        ("export", FACES, "--format", "torchscript", "-o", f"{LONG}.pt"),
        ("export", FACES, "--format", "torchscript", "-o", "folder"),
        ("export", FACES, "--format", "torchscript", "-o", "file/net.pt"),
        ("export", FACES, "--format", "torchscript", "-o", "/dev/full"),
        ("inspect-weights", FACES, "-o", LONG),
        ("inspect-weights", FACES, "-o", "folder"),
        ("inspect-weights", FACES, "-o", "file/table.json"),
        ("inspect-weights", FACES, "-o", "/dev/full"),
        ("inspect-weights", FACES, "-o", "/proc/table.json"),
        ("experiments", "--folder", LONG),
        ("experiments", "--folder", "file"),
        ("reproduce", LONG),
        ("reproduce", "id", "--folder", "file"),
        ("sweep", "train", "-c", LONG),
        ("configs", "show", LONG),
        ("configs", "copy", "config_catanet.yml", "-o", LONG),
        ("train", "-c", "config_catanet.yml", f"output.dir={LONG}"),
        ("train", "-c", "config_catanet.yml", "output.runs=file", "device=cpu"),
        ("train", "-c", "config_catanet.yml", f"data.hr={LONG}", "data.kind=hr_only"),
        ("train", "-c", "config_catanet.yml", f"model.weights={LONG}"),
        ("prune", "-c", "config_catanet.yml", f"teacher={LONG}"),
        ("prune", "-c", "config_catanet.yml", "teacher=folder"),
        ("paths", "-c", f"{LONG}/{LONG}"),
        ("clean", "-c", "folder"),
    ],
    ids=lambda arguments: "-".join(str(part).replace("/", "_")[:20] for part in arguments),
)
def test_paths_that_cannot_be_used_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str | Path, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "folder.onnx"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    cv2.imwrite("image.png", np.zeros((8, 8, 3), np.uint8))
    ended = call_kdp(*arguments)
    assert (ended.code, ended.line[:5]) == (2, "kdp: "), ended.stderr
