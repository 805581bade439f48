"""The documented command that prunes the face-mask classifier by 30, 50 and 70 %."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdp.stages.sweep import sweep
from kdp.stages.sweep.quality import AS_CUT
from tests.conftest import ROOT
from tests.in_process import Ended, call_kdp
from tests.sweeps import launch_here

BRIEF = [
    "finetune.steps=2",
    "finetune.batch_size=4",
    "measure.latency_runs=1",
    "measure.warmup_runs=0",
]


def documented() -> list[str]:
    """The arguments of the command in the guide."""
    lines = (ROOT / "docs" / "face-masks.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("kdp sweep"))
    return shlex.split(line)[1:]


def write_photographs(folder: Path) -> None:
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for label in ("with_mask", "without_mask"):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                image = random.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / part / label / f"{number}.png"), image)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The folder of the sweep, and how the command ended."""
    folder = tmp_path_factory.mktemp("faces")
    write_photographs(folder / "photographs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("KDP_FACES", str(folder / "photographs"))
        patch.setenv("COLUMNS", "120")
        patch.setattr(sweep, "launch", launch_here)
        short = ["train.steps=1", "train.batch_size=4", "train.warmup_steps=0"]
        trained = call_kdp("train", "--config", "face_mask.yml", "faces=real", *short)
        assert trained.code == 0, trained.stderr
        ended = call_kdp(*documented(), *(part for own in BRIEF for part in ("--set", own)))
    assert ended.code == 0, ended.stderr
    (run,) = (folder / "runs" / "faces" / "logs" / "face_mask_slim_sweep").iterdir()
    return run, ended


def test_it_ends_in_one_table(done: tuple[Path, Ended]) -> None:
    lines = done[1].stdout.splitlines()
    heads = [line for line in lines if "2: face" in line and "4: face" in line]
    assert len(heads) == 1
    assert not [line for line in lines if "status" in line]
    for title in (f"val accuracy ({AS_CUT}), %", "val accuracy (finetune), %", "val accuracy, %"):
        assert len([line for line in lines if title in line]) == 1, title


def test_the_table_has_all_stages_of_all_ratios(done: tuple[Path, Ended]) -> None:
    table = json.loads((done[0] / "compare.json").read_text())
    rows = {row["name"]: row["values"] for row in table["rows"]}
    dense, *pruned = rows["parameters"]
    assert dense > pruned[0] > pruned[1] > pruned[2]
    points = json.loads((done[0] / "summary.json").read_text())["points"]
    assert [point["overrides"] for point in points] == [
        [f"pruning_ratio={ratio}"] for ratio in ("0.3", "0.5", "0.7")
    ]
    for stage in (AS_CUT, "finetune"):
        measured = [
            quality["metrics"]["val"]["accuracy"]
            for point in points
            for quality in point["qualities"]
            if quality["stage"] == stage
        ]
        assert rows[f"val accuracy ({stage})"] == [rows["val accuracy"][0], *measured]
    assert len(rows["val accuracy"]) == len(rows["MACs, all"]) == 4
