"""A record names the files that a stage has read, not those that are there when it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kdp.artifacts import load, read_parents
from kdp.config import Config
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train.cache_targets import cache_targets
from kdp.stages.train.finetune import finetune
from kdp.stages.train.train import train
from tests import runs
from tests.runs import SHORT

WRITTEN = {
    prune: "weights/tiny_pruned.pth",
    finetune: "weights/tiny_finetuned_feature_kd.pth",
    rebuild: "weights/tiny_rebuilt.pth",
    train: "weights/tiny.pth",
    cache_targets: "targets/index.pth",
}


def config(folder: Path) -> Config:
    short = {**SHORT, "steps": 1, "validate_every": 1, "checkpoint_every": 1}
    search = {"criterion": "magnitude", "calibration": {"patches": 2, "patch_size": 10}}
    losses = {"feature": {}}
    return runs.config(
        folder,
        **{"mac_constraint": 0.8, "prune": search, "measure": {"input_size": [16, 16]}},
        **{"train": short, "finetune": short, "distill": {"losses": losses}},
    )


@pytest.mark.parametrize("stage", WRITTEN, ids=lambda stage: stage.__name__)
def test_an_input_that_is_replaced_meanwhile_is_recorded_as_it_was_read(
    tmp_path: Path, stage: Callable[..., object]
) -> None:
    runs.prune(tmp_path)
    settings = config(tmp_path)
    if stage is cache_targets:
        distill = {"losses": {"feature": {}}, "target_cache": str(tmp_path / "targets")}
        settings = runs.config(tmp_path, train=settings.train, distill=distill)
    inputs = [tmp_path / "teacher.pth", *sorted((tmp_path / "weights").glob("*.pth"))]
    before = {parent.path: parent.sha256 for parent in read_parents(inputs)}

    def replace_inputs() -> None:
        for path in inputs:
            path.write_bytes(path.read_bytes() + b"\0")

    stage(settings, on_ready=replace_inputs, **({"overwrite": True} if stage is prune else {}))
    record = load(tmp_path / WRITTEN[stage]).record
    assert record
    assert record.parents
    assert {p.path: p.sha256 for p in record.parents}.items() <= before.items()
