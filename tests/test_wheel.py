"""The wheel contains the listed configurations and weights and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from kdp.shipped import CONFIGS, SCHEMA, WEIGHTS
from tests.conftest import ROOT


def _run(
    *command: str, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Contents of a wheel built from a copy with further files in it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("kdp", "configs", "weights", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    (source / "configs" / "mine.yml").write_text("output: {name: mine}\n")
    (source / "weights" / "catanet_pruned.pth").touch()
    _run("setup.py", "--quiet", "build_py", "--build-lib", str(target), folder=source)
    return target


def test_the_wheel_holds_the_listed_files_only(built: Path) -> None:
    shipped = built / "kdp" / "_shipped"
    files = {path.relative_to(shipped).as_posix() for path in shipped.rglob("*") if path.is_file()}
    assert files == {
        *(f"configs/{name}" for name in CONFIGS),
        *(f"weights/{name}" for name in WEIGHTS),
        SCHEMA,
    }


def test_the_wheel_reads_its_files_in_an_empty_folder(built: Path, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(built)}
    command = ("-m", "kdp", "paths", "--config", "face_mask_prune.yml")
    paths = _run(*command, folder=tmp_path, environment=environment).stdout
    assert f"CONFIGS := {built}/kdp/_shipped/configs/face_mask_prune.yml" in paths
    command = ("-m", "kdp", "inspect-weights", "weights/face_mask_small.pth")
    assert "6,210" in _run(*command, folder=tmp_path, environment=environment).stdout
    assert not (tmp_path / "weights").exists()
