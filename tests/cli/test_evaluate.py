"""`kdp evaluate`: the quality of networks alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from kdp.artifacts import Artifact, save
from kdp.cli import app
from kdp.errors import KdpError
from kdp.models import build
from kdp.types import Arch
from tests.conftest import TINY


def _kdp(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def networks(tmp_path: Path) -> list[Path]:
    """Two networks of one architecture with different weights."""
    paths = [tmp_path / "first.pth", tmp_path / "second.pth"]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        save(path, Artifact(build("catanet", **TINY).state_dict(), Arch("catanet", TINY)))
    return paths


def test_evaluate_measures_quality_and_nothing_else(networks: list[Path]) -> None:
    done = _kdp("evaluate", *networks, "--device", "cpu", "--format", "json")
    assert done.exit_code == 0, done.stderr
    content = json.loads(done.stdout)
    assert [row["name"] for row in content["rows"]] == ["embedded PSNR", "embedded SSIM"]
    first, second = content["rows"][0]["values"]
    assert first != second


def test_evaluate_writes_the_format_of_the_suffix(networks: list[Path], tmp_path: Path) -> None:
    files = [tmp_path / "table.csv", tmp_path / "table.md"]
    outputs = [argument for file in files for argument in ("-o", file)]
    done = _kdp("evaluate", networks[0], "--device", "cpu", *outputs)
    assert done.exit_code == 0, done.stderr
    assert files[0].read_text().startswith("measure,unit,")
    assert files[1].read_text().startswith("|  | 1: first |")


def test_an_unsupported_suffix_is_rejected_before_evaluating(tmp_path: Path) -> None:
    done = _kdp("evaluate", tmp_path / "gone.pth", "-o", "table.xls")
    assert isinstance(done.exception, KdpError)
    assert "its name must end with .csv, .json or .md" in str(done.exception)
