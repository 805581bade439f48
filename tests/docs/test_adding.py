"""The examples of docs/adding.md work as printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdp.artifacts import load
from kdp.config import Config
from kdp.data.images import png_bytes, read_rgb
from kdp.distillation.losses import LOSSES
from kdp.models.onnx_file import load_onnx
from kdp.pruning import dynamic
from kdp.pruning.importance import CRITERIA
from kdp.stages.prune.prune import prune
from kdp.stages.train.train import train
from kdp.types import Arch
from tests.conftest import ROOT
from tests.runs import config
from tests.runs import prune as write_teacher

TABLES: tuple[dict[str, Any], ...] = (LOSSES, CRITERIA, dynamic.GATE_CRITERIA)
PAGE, FAMILY = (ROOT / "docs" / "adding.md").read_text().split("## A family")


@pytest.fixture(autouse=True)
def examples() -> Iterator[list[str]]:
    """Runs the losses and criteria of the page and restores the registries afterwards."""
    before = [dict(table) for table in TABLES]
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, "docs/adding.md", "exec"), names)
    yield blocks
    for table, old in zip(TABLES, before, strict=True):
        table.clear()
        table.update(old)


def student(folder: Path, **changes: Any) -> Config:
    losses = {"cosine": {"weight": 0.5, "options": {"power": 2}}}
    return config(folder, distill={"losses": losses}, **changes)


def test_an_added_loss_is_trained_with_and_logged(tmp_path: Path) -> None:
    write_teacher(tmp_path)
    train(student(tmp_path))
    assert '"cosine":' in (tmp_path / "runs/tiny_train/curves.jsonl").read_text()


def test_an_added_criterion_prunes(tmp_path: Path) -> None:
    write_teacher(tmp_path)
    section = {"criterion": "largest", "calibration": {"patches": 2, "patch_size": 12}}
    result = prune(config(tmp_path, mac_constraint=0.8, prune=section))
    assert load(result.masks).record.config["prune"]["criterion"] == "largest"
    assert result.plan.macs < result.plan.dense_macs


def test_an_added_criterion_prunes_while_training(tmp_path: Path) -> None:
    write_teacher(tmp_path)
    settings = {"criterion": "movement", "end_step": 4, "period": 2}
    written = train(student(tmp_path, mac_constraint=0.8, dynamic=settings))
    assert not all(mask.all() for mask in load(written["masks"]).extra["masks"].values())


def kdp_with_stripes(folder: Path) -> Path:
    """A copy of kdp with the files of the page and the lines it adds to tables, and no others."""
    shutil.copytree(ROOT / "kdp", folder / "kdp", ignore=shutil.ignore_patterns("__pycache__"))
    new_files = re.findall(r"(?ms)^`(kdp/\S+)`:\n\n```python\n(.*?)```", FAMILY)
    for name, content in new_files:
        assert not (folder / name).exists()
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    (folder / "kdp/tasks/stripes/__init__.py").touch()
    lines = re.findall(r"(?ms)^Its line in the table of `(\S+)`.*?```diff\n(.*?)```", FAMILY)
    assert [name for name, _ in lines] == ["kdp/models/__init__.py", "kdp/tasks/__init__.py"]
    for name, patch in lines:
        old = "".join(re.findall(r"^ (.*\n)", patch, re.MULTILINE))
        new = re.sub(r"^[ +]", "", patch, flags=re.MULTILINE)
        text = (folder / name).read_text()
        assert text.count(old) == 1
        (folder / name).write_text(text.replace(old, new))
    return folder


STAGES = ("validate", "prune", "finetune", "rebuild")
MAIN = """
import json, sys
from kdp.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["kdp", *arguments]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which every command of the page has run, and their output."""
    source = kdp_with_stripes(tmp_path_factory.mktemp("source"))
    folder = tmp_path_factory.mktemp("stripes")
    (settings,) = re.findall(r"```yaml\n(.*?)```", FAMILY, re.DOTALL)
    (folder / "stripes.yml").write_text(settings)
    rows = np.repeat(np.arange(16, dtype=np.uint8) % 2 * 255, 16).reshape(16, 16, 1)
    (folder / "images").mkdir()
    (folder / "images" / "level.png").write_bytes(png_bytes(np.repeat(rows, 3, axis=2)))
    chain = [[stage, "-c", "stripes.yml", "device=cpu"] for stage in STAGES]
    german = ("--set", "stripes.words=[liegend,stehend]")
    teacher, small = "weights/stripes.pth", "weights/stripes_rebuilt.pth"
    commands = [
        ["train", "-c", "stripes.yml", "device=cpu", "distill=null"],
        *chain,
        ["compare", teacher, small, "-c", "stripes.yml", "--json", "table.json", "--device", "cpu"],
        ["export", small, "--format", "onnx", "-o", "small.onnx"],
        ["infer", teacher, "images", "--headless"],
        ["infer", teacher, "images", "--headless", "-o", "german", *german],
    ]
    done = subprocess.run(
        [sys.executable, "-c", MAIN, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_an_added_family_is_trained_pruned_and_rebuilt(stripes: tuple[Path, str]) -> None:
    folder, _ = stripes
    assert load(folder / "weights/stripes.pth").record.metrics["toy"]["accuracy"] > 0.9
    assert '"accuracy":' in (folder / "runs/stripes_train/curves.jsonl").read_text()
    rebuilt = load(folder / "weights/stripes_rebuilt.pth")
    assert rebuilt.arch == Arch("stripes", {"channels": [4, 4]})


def test_an_added_family_is_compared(stripes: tuple[Path, str]) -> None:
    folder, _ = stripes
    rows = {row["name"]: row for row in json.loads((folder / "table.json").read_text())["rows"]}
    assert rows["toy accuracy"]["values"][0] > 0.9
    assert rows["parameters"]["values"][1] < rows["parameters"]["values"][0]


def test_an_added_family_is_exported_with_its_own_description(stripes: tuple[Path, str]) -> None:
    folder, _ = stripes
    network = load_onnx(folder / "small.onnx")[0]
    assert network.about["input"] == "grey in 0..1, (batch, 1, height, width)"
    assert network.about["classes"] == ["level", "upright"]


def test_an_added_family_has_infer_and_reads_its_own_section(stripes: tuple[Path, str]) -> None:
    folder, printed = stripes
    english, german = (json.loads(line) for line in printed.splitlines() if line.startswith("{"))
    assert (english["direction"], german["direction"]) == ("level", "liegend")
    assert english["written"] == "images_stripes/level.png"
    assert read_rgb(folder / english["written"]).shape[0] > 16


def test_the_data_kind_of_an_added_family_is_checked(tmp_path: Path) -> None:
    source = kdp_with_stripes(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "kdp", "validate", "-c", "wrong.yml"],
        input="",
        cwd=_with(tmp_path / "wrong.yml", "data: {kind: stripes, sides: 8}\noutput: {name: x}\n"),
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "did you mean 'side'?" in done.stderr


def _with(file: Path, content: str) -> Path:
    """The folder of a file, once it is written."""
    file.write_text(content)
    return file.parent


def test_the_examples_of_losses_and_criteria_are_short(examples: list[str]) -> None:
    for block in examples:
        code = [line for line in block.splitlines() if line and "import" not in line]
        assert len(code) <= 10
