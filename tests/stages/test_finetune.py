"""Fine-tuning: a pruned network learns from its teacher, and removed units stay removed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact, load, save
from kdp.errors import Interrupted, KdpError
from kdp.files import sha256
from kdp.models import build
from kdp.models.catanet import CATANet
from kdp.pruning.masks import removed_are_zero
from kdp.stages.paths import chain_paths
from kdp.stages.train.finetune import finetune
from kdp.tasks.super_resolution.groups import catanet_groups
from kdp.tasks.super_resolution.task import SuperResolution
from kdp.types import Arch
from tests.conftest import TINY, same_params
from tests.runs import (
    SHORT,
    complaints,
    config,
    config_file,
    prune,
    run_kdp,
    start_kdp,
    wait_until,
)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Every network whose forward runs, once per call."""
    networks_run: list[nn.Module] = []
    plain = CATANet.forward

    def forward(self: CATANet, x: Tensor) -> Tensor:
        networks_run.append(self)
        return plain(self, x)

    monkeypatch.setattr(CATANet, "forward", forward)
    return networks_run


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "runs/tiny_finetune_feature_kd/curves.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_removed_units_are_zero_in_every_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = prune(tmp_path)
    adam, forward, checks = torch.optim.Adam.step, CATANet.forward, {True: 0, False: 0}

    def drifting_step(self: torch.optim.Adam, closure: None = None) -> None:
        adam(self)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(1e-3)

    def checked(self: CATANet, x: Tensor) -> Tensor:
        if self.first_conv.weight.requires_grad:  # not the teacher
            assert removed_are_zero(self, catanet_groups(self), masks)
            checks[self.training] += 1
        return forward(self, x)

    monkeypatch.setattr(torch.optim.Adam, "step", drifting_step)
    monkeypatch.setattr(CATANet, "forward", checked)
    path = finetune(config(tmp_path))["finetuned"]
    assert checks == {True: 6, False: 7}, "6 steps; a probe; 3 validations of 2 images"
    model = build("catanet", **TINY)
    model.load_state_dict(load(path).params)
    assert removed_are_zero(model, catanet_groups(model), masks)


def test_the_result_is_the_trained_network_with_its_provenance(tmp_path: Path) -> None:
    prune(tmp_path)
    paths = chain_paths(config(tmp_path))
    assert finetune(config(tmp_path)) == {"finetuned": paths.finetuned}
    before, after = load(paths.pruned), load(paths.finetuned)
    assert after.arch == before.arch
    assert not torch.equal(after.params["mid_convs.0.weight"], before.params["mid_convs.0.weight"])
    assert after.record.stage == "finetune"
    parents = [(Path(p.path), p.sha256) for p in after.record.parents]
    files = (paths.pruned, paths.masks, tmp_path / "teacher.pth")
    assert parents == [(path, sha256(path)) for path in files]
    assert after.record.parents[0].record.stage == "train"
    best = max(row["small/psnr"] for row in rows(tmp_path) if "small/psnr" in row)
    assert after.record.metrics["small"]["psnr"] == best


def test_the_teacher_is_never_touched(tmp_path: Path, networks: list[nn.Module]) -> None:
    prune(tmp_path)
    before = (tmp_path / "teacher.pth").read_bytes()
    finetune(config(tmp_path))
    (teacher,) = {net for net in networks if not any(p.requires_grad for p in net.parameters())}
    assert networks.count(teacher) == 7, "6 steps and a probe"
    assert same_params(dict(teacher.state_dict()), load(tmp_path / "teacher.pth").params)
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert (tmp_path / "teacher.pth").read_bytes() == before


def test_features_get_closer_to_the_teacher(tmp_path: Path) -> None:
    prune(tmp_path)
    steps = {**SHORT, "steps": 30, "validate_every": 30}
    losses = {"task_weight": 0.0, "losses": {"feature": {}}}
    finetune(config(tmp_path, finetune=steps, distill=losses))
    distances = [row["feature"] for row in rows(tmp_path) if "feature" in row]
    assert sum(distances[-5:]) < 0.8 * sum(distances[:5])


def test_every_part_of_the_loss_is_logged(tmp_path: Path) -> None:
    prune(tmp_path)
    finetune(config(tmp_path))
    first = rows(tmp_path)[0]
    assert {"step", "lr", "loss", "task", "fakd", "feature"} <= first.keys()
    total = first["task"] + 10 * first["fakd"] + first["feature"]
    assert first["loss"] == pytest.approx(total, rel=1e-5)


def test_without_distillation_only_the_ground_truth_is_used(
    tmp_path: Path, networks: list[nn.Module]
) -> None:
    prune(tmp_path)
    path = finetune(config(tmp_path, distill=None, teacher=None))["finetuned"]
    assert path == tmp_path / "weights/tiny_finetuned_plain.pth"
    assert all(parameter.requires_grad for net in networks for parameter in net.parameters())


@pytest.mark.parametrize(
    ("losses", "name"),
    [
        (["feature"], "feature_kd"),
        (["output"], "output_kd"),
        (["fakd"], "fakd"),
        (["output", "fakd"], "fakd"),
        (["fakd", "output"], "output_kd"),
    ],
)
def test_the_last_loss_names_the_file(tmp_path: Path, losses: list[str], name: str) -> None:
    chosen = config(tmp_path, distill={"losses": {loss: {} for loss in losses}})
    assert chain_paths(chosen).finetuned == tmp_path / f"weights/tiny_finetuned_{name}.pth"


def test_a_stopped_run_resumes_to_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        prune(folder)
    expected = load(finetune(config(whole))["finetuned"])
    plain, calls = SuperResolution.loss, []

    def loss(self: SuperResolution, output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        if output.requires_grad:  # a validation computes the loss too
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGINT)
        return plain(self, output, batch)

    monkeypatch.setattr(SuperResolution, "loss", loss)
    with pytest.raises(Interrupted, match="after step 3"):
        finetune(config(parts))
    assert not chain_paths(config(parts)).finetuned.exists()
    resumed = load(finetune(config(parts), resume=True)["finetuned"])
    assert same_params(resumed.params, expected.params)
    assert resumed.record.metrics == expected.record.metrics
    assert rows(parts) == rows(whole)


def test_a_killed_run_resumes_to_the_same_file(tmp_path: Path) -> None:
    steps = {**SHORT, "steps": 20, "checkpoint_every": 2, "validate_every": 10}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        prune(folder)
    arguments = ("finetune", "-c", str(config_file(parts, finetune=steps)))
    process = start_kdp(*arguments)
    wait_until((parts / "runs/tiny_finetune_feature_kd/checkpoint.pth").exists, process)
    process.kill()
    process.communicate()
    assert not chain_paths(config(parts)).finetuned.exists()
    done = run_kdp(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    expected = run_kdp("finetune", "-c", str(config_file(whole, finetune=steps)))
    assert expected.returncode == 0, expected.stderr
    a, b = (load(chain_paths(config(folder)).finetuned) for folder in (parts, whole))
    assert same_params(a.params, b.params)
    assert rows(parts) == rows(whole)


def test_ctrl_c_leaves_a_checkpoint_and_one_line(tmp_path: Path) -> None:
    prune(tmp_path)
    steps = {**SHORT, "steps": 5000, "checkpoint_every": 5000}
    process = start_kdp("finetune", "-c", str(config_file(tmp_path, finetune=steps)))
    folder = tmp_path / "runs/tiny_finetune_feature_kd"
    wait_until((folder / "curves.csv").exists, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    (line,) = complaints(stderr)
    assert line.endswith("continue with --resume")
    assert (folder / "checkpoint.pth").exists()


def test_a_nan_loss_exits_with_two_and_overwrites_nothing(tmp_path: Path) -> None:
    prune(tmp_path)
    old = chain_paths(config(tmp_path)).finetuned
    save(old, Artifact({}, Arch("catanet", TINY)))
    before = old.read_bytes()
    changes = ("finetune.lr=1e30", "finetune.clip_norm=null")
    done = run_kdp("finetune", "-c", str(config_file(tmp_path)), *changes)
    assert done.returncode == 2
    (line,) = complaints(done.stderr)
    assert "the loss is" in line
    assert "lower the learning rate" in line
    assert old.read_bytes() == before


def test_a_run_does_not_resume_with_other_masks(tmp_path: Path) -> None:
    prune(tmp_path)
    finetune(config(tmp_path))
    path = chain_paths(config(tmp_path)).masks
    artifact = load(path)
    artifact.extra["masks"]["blocks.0.tab_heads"][:] = True
    save(path, artifact)
    with pytest.raises(KdpError, match=r"made with other settings \(parents\)"):
        finetune(config(tmp_path), resume=True)


def test_masks_that_do_not_fit_the_weights_are_refused(tmp_path: Path) -> None:
    masks = prune(tmp_path)
    masks["blocks.0.tab_neurons"][:] = False
    path = chain_paths(config(tmp_path)).masks
    save(path, Artifact({}, extra={"masks": masks}))
    with pytest.raises(KdpError, match=r"tiny_pruned.pth has weights other than zero"):
        finetune(config(tmp_path))


def test_masks_of_another_network_are_refused(tmp_path: Path) -> None:
    masks = prune(tmp_path)
    masks["blocks.0.tab_neurons"] = torch.ones(7, dtype=torch.bool)
    path = chain_paths(config(tmp_path)).masks
    save(path, Artifact({}, extra={"masks": masks}))
    with pytest.raises(KdpError, match="masks of another network"):
        finetune(config(tmp_path))


def test_a_file_without_masks_is_refused(tmp_path: Path) -> None:
    prune(tmp_path)
    paths = chain_paths(config(tmp_path))
    paths.masks.write_bytes(paths.pruned.read_bytes())
    with pytest.raises(KdpError, match=r"tiny_pruning_masks.pth holds no masks"):
        finetune(config(tmp_path))


def test_a_teacher_of_another_scale_is_refused(tmp_path: Path) -> None:
    prune(tmp_path)
    args = {**TINY, "upscale": 3}
    params = build("catanet", **args).state_dict()
    save(tmp_path / "teacher.pth", Artifact(params, Arch("catanet", args)))
    with pytest.raises(KdpError, match=r"shape \(3, 24, 24\), the teacher's \(3, 36, 36\)"):
        finetune(config(tmp_path, distill={"losses": {"output": {}}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune": None}, "needs the section `finetune`"),
        ({"teacher": None}, "needs `teacher`"),
        ({"evaluation": {}}, "needs an `evaluation` set"),
        ({"distill": {"losses": {"faked": {}}}}, "did you mean 'fakd'"),
        ({"distill": {"losses": {"feature": {}}, "taps": ["mid_conv"]}}, "did you mean 'mid_conv"),
    ],
)
def test_a_wrong_configuration_is_a_one_line_error(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    prune(tmp_path)
    with pytest.raises(KdpError, match=message):
        finetune(config(tmp_path, **changes))


def test_a_missing_pruned_network_is_named(tmp_path: Path) -> None:
    prune(tmp_path)
    (tmp_path / "weights/tiny_pruned.pth").unlink()
    with pytest.raises(KdpError, match=r"tiny_pruned.pth does not exist: run `kdp prune`"):
        finetune(config(tmp_path))
