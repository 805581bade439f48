"""Shipped weights are read from the package unless `weights/` has them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kdp.artifacts import Artifact, load, save
from kdp.errors import KdpError
from kdp.files import input_path, sha256
from kdp.log import log_once
from tests.conftest import ROOT

SMALL = Path("weights/face_mask_small.pth")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    log_once.cache_clear()
    return tmp_path


def test_a_shipped_weight_is_read_from_the_package(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kdp")
    assert load(SMALL).arch == load(ROOT / SMALL).arch
    assert sha256(SMALL) == sha256(ROOT / SMALL)
    assert [str(SMALL) in line for line in caplog.messages] == [True]


def test_a_local_file_comes_first() -> None:
    save(SMALL, Artifact({}))
    assert load(SMALL).params == {}


@pytest.mark.parametrize("path", ["weights/other.pth", "face_mask_small.pth", "w/face_mask.pth"])
def test_other_paths_are_not_read_from_the_package(path: str) -> None:
    assert input_path(Path(path)) == Path(path)
    with pytest.raises(KdpError, match=f"{path} does not exist"):
        load(Path(path))
