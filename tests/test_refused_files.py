"""Files that are refused as checkpoints."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdp.artifacts import Artifact, load, save
from kdp.errors import KdpError
from tests.artifact_helpers import ARCH, EMPTY_ARTIFACT, RunsCode, catanet
from tests.conftest import TINY


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    path, target = tmp_path / "harm.pth", tmp_path / "harm was done"
    content = {"params": {"w": torch.zeros(1)}, "more": RunsCode(target)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(KdpError, match=r"harm\.pth.*refused"):
        load(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists(), "the file does no harm, so that this test shows nothing"


@pytest.mark.parametrize("size", range(0, 1200, 50))
def test_a_broken_file_of_the_old_format_is_named(tmp_path: Path, size: int) -> None:
    path = tmp_path / "old.pth"
    torch.save({"w": torch.zeros(300)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(KdpError, match=r"old\.pth"):
        load(path)


@pytest.mark.parametrize("size", [0, 10, 1000, 5000])
def test_a_truncated_file_is_named(tmp_path: Path, size: int) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "cut.pth"
    save(whole, Artifact(catanet(**TINY).state_dict(), ARCH))
    path.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(KdpError, match=r"cut\.pth"):
        load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({}, "no weights"),
        ({"params": {}}, "no weights"),
        ({"params": 3}, "no weights"),
        ({"epoch": 3}, "not tensors"),
        ({"format": "kdp", "version": 3}, "version 3; this kdp reads up to 2: update kdp"),
        ({"format": "kdp"}, "version None"),
        ({"format": "kdp", "version": 1}, "incomplete"),
        ({**EMPTY_ARTIFACT, "record": {"seed": 3}}, "damaged"),
        ({**EMPTY_ARTIFACT, "arch": "catanet"}, "damaged"),
    ],
)
def test_invalid_checkpoints_are_rejected(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(KdpError, match=rf"odd\.pth.*{message}"):
        load(tmp_path / "odd.pth")


def test_torchscript_is_named_in_the_error(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "net.ts")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            KdpError, match=r"net\.ts is TorchScript, which kdp writes but does not read"
        ):
            load(tmp_path / "net.ts")


def test_a_setting_given_as_a_file_suggests_set(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match=r"does not exist; a setting is changed by --set "):
        load(tmp_path / "seed=3")


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text("not a checkpoint\n")
    with pytest.raises(KdpError, match=r"notes\.pth"):
        load(tmp_path / "notes.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match=r"gone\.pth does not exist"):
        load(tmp_path / "gone.pth")
