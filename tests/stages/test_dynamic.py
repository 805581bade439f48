"""`kdp train` with a section `dynamic`, and the files that it writes."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import load
from kdp.config import Config
from kdp.errors import KdpError
from kdp.measure.complexity import count_macs_of
from kdp.models.loading import load_network
from kdp.pruning.dynamic import DynamicPruner
from kdp.pruning.masks import removed_are_zero
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train.train import train
from kdp.tasks.super_resolution.groups import catanet_groups
from tests.conftest import same_params
from tests.runs import SHORT, complaints, config, config_file, run_kdp, start_kdp, wait_until


def run(folder: Path, **changes: Any) -> Config:
    """A configuration that prunes a tiny CATANet to 0.8 while it trains."""
    settings = {"criterion": "taylor", "end_step": 4, "period": 2, "loss": {"weight": 0.01}}
    return config(
        folder,
        teacher=None,
        distill=None,
        mac_constraint=0.8,
        dynamic={**settings, **changes.pop("dynamic", {})},
        **changes,
    )


def test_training_prunes_to_the_budget_and_rebuilds(tmp_path: Path) -> None:
    settings = run(tmp_path)
    written = train(settings)
    masks = load(written["masks"])
    for name in ("best", "last"):
        model, arch, _ = load_network(written[name])
        groups = catanet_groups(model)
        assert removed_are_zero(model, groups, masks.extra["masks"])
    assert not all(mask.all() for mask in masks.extra["masks"].values())
    done = rebuild(settings)
    _, small, _ = load_network(done.path)
    size = (1, 3, 64, 64)
    macs = count_macs_of(small, torch.rand(size)) / count_macs_of(arch, torch.rand(size))
    assert 0.7 < macs <= 0.8
    assert done.difference < 1e-6


def test_masks_of_another_training_are_refused(tmp_path: Path) -> None:
    """As after a stop between the files of a second training."""
    first, second = run(tmp_path), run(tmp_path, dynamic={"criterion": "magnitude"})
    masks = train(first)["masks"]
    rebuild(first, overwrite=True)
    before = masks.read_bytes()
    train(second, overwrite=True)
    masks.write_bytes(before)
    with pytest.raises(KdpError, match=r"tiny\.pth was made with other masks"):
        rebuild(first, overwrite=True)


def test_the_best_weights_keep_the_budget(tmp_path: Path) -> None:
    # A learning rate that spoils the network makes the first validation the best one.
    train(run(tmp_path, train={**SHORT, "lr": 0.1, "steps": 4, "validate_every": 1}))
    model, _, artifact = load_network(tmp_path / "weights/tiny.pth")
    masks = load(tmp_path / "weights/tiny_pruning_masks.pth").extra["masks"]
    assert removed_are_zero(model, catanet_groups(model), masks)
    assert artifact.record.metrics


@pytest.mark.parametrize("criterion", ["gate", "taylor"])
def test_a_resumed_run_prunes_the_same_units(tmp_path: Path, criterion: str) -> None:
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    changes = {"dynamic": {"criterion": criterion, "period": 3, "end_step": 6}}
    train(run(tmp_path / "whole", **copy.deepcopy(changes)))
    file = config_file(
        tmp_path / "resumed", **run(tmp_path / "resumed", **changes).model_dump(mode="json")
    )
    slow = start_kdp("train", "--config", str(file), "train.checkpoint_every=1")
    checkpoint = tmp_path / "resumed/runs/tiny_train/checkpoint.pth"
    wait_until(checkpoint.exists, slow)
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    assert load(checkpoint).extra["training"]["step"] < 6
    done = run_kdp("train", "--config", str(file), "--resume")
    assert done.returncode == 0, done.stderr
    a, b = (load(tmp_path / n / "weights/tiny.pth").params for n in ("whole", "resumed"))
    assert same_params(a, b)
    a, b = (
        load(tmp_path / n / "weights/tiny_pruning_masks.pth").extra["masks"]
        for n in ("whole", "resumed")
    )
    assert same_params(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dynamic": {"criterion": "gates"}}, "did you mean 'gate'"),
        ({"dynamic": {"end_step": 99}}, "after the last of the 6 steps"),
        ({"mac_constraint": None}, "needs `dynamic`, `train` and `mac_constraint`"),
        ({"mac_constraint": 0.01}, "cannot be reached"),
        ({"prune": {"min_units": {"head": 1}}}, "no kind of group is called 'head'"),
    ],
)
def test_impossible_settings_are_rejected(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    settings = run(tmp_path, dynamic=changes.get("dynamic", {}))
    rest = {key: value for key, value in changes.items() if key != "dynamic"}
    plain = {**settings.model_dump(mode="json"), **rest}
    with pytest.raises(KdpError, match=message):
        train(Config.model_validate(plain))


def test_an_end_step_before_the_start_step_is_rejected(tmp_path: Path) -> None:
    file = config_file(tmp_path, dynamic={"start_step": 5, "end_step": 5})
    done = run_kdp("train", "--config", str(file))
    assert done.returncode == 2
    (line,) = complaints(done.stderr)
    assert "end_step (5) must be after start_step" in line


def test_a_run_with_gates_does_not_resume_one_without(tmp_path: Path) -> None:
    train(run(tmp_path, train={**SHORT, "steps": 4}))
    plain = run(tmp_path).model_dump(mode="json")
    with pytest.raises(KdpError, match="other settings"):
        train(Config.model_validate({**plain, "dynamic": None}), resume=True)


def test_prune_rejects_a_configuration_that_prunes_while_training(tmp_path: Path) -> None:
    settings = run(tmp_path).model_copy(update={"teacher": tmp_path / "teacher.pth"})
    with pytest.raises(KdpError, match="prunes while it trains"):
        prune(settings)


def test_a_missed_budget_leaves_old_files_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "weights/tiny.pth"
    old.parent.mkdir()
    old.write_bytes(b"old")
    monkeypatch.setattr(DynamicPruner, "after_step", lambda self, step: None)
    with pytest.raises(KdpError, match="misses"):
        train(run(tmp_path), overwrite=True)
    assert old.read_bytes() == b"old"
