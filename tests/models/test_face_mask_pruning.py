"""Channel pruning of the face-mask classifier, from groups to the rebuilt network."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact, load, make_record, save
from kdp.config.compose import load_config
from kdp.models.loading import load_network
from kdp.models.mask_classifier import CLASSES
from kdp.models.taps import Taps
from kdp.pruning.dependency import channel_groups
from kdp.pruning.masks import masks_applied, zero_removed
from kdp.pruning.rebuild import rebuild as cut
from kdp.pruning.replay import Replay
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train import finetune as finetuning
from kdp.stages.train.finetune import finetune
from kdp.stages.train.train import train
from kdp.types import Arch
from tests.conftest import ROOT
from tests.models.face_mask_helpers import SMALL, groups_of, lively, parameters, settings

PRUNED = {0.3: ([22, 44, 89], 45195), 0.5: ([16, 32, 64], 23938), 0.7: ([9, 19, 38], 8556)}


@pytest.mark.parametrize("ratio", PRUNED)
def test_pruned_networks_have_the_expected_widths(tmp_path: Path, ratio: float) -> None:
    arch = Arch("mask_classifier", {"image_size": 64})
    record = make_record("train", {})
    save(tmp_path / "base.pth", Artifact(lively().state_dict(), arch, record))
    where = [f"output.dir={tmp_path}", f"teacher={tmp_path}/base.pth", f"pruning_ratio={ratio}"]
    config = load_config(ROOT / "configs" / "face_mask_prune.yml", [*where, "device=cpu"])
    result = prune(config)
    done = rebuild(config, source=result.pruned)
    channels, count = PRUNED[ratio]
    small, arch, _ = load_network(done.path)
    assert arch.args["channels"] == channels
    assert parameters(small) == count


def test_finetuning_computes_only_the_remaining_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings(tmp_path, distill=None))
    config = settings(tmp_path, pruning_ratio=0.5)
    prune(config)
    widths: set[int] = set()
    student = finetuning._PrunedNetwork.student

    def watched(*arguments: Any) -> nn.Module:
        model = student(*arguments)
        model.get_submodule("head").register_forward_pre_hook(
            lambda _, inputs: widths.add(inputs[0].shape[1])
        )
        return model

    monkeypatch.setattr(finetuning._PrunedNetwork, "student", watched)
    fast = load(finetuning.finetune(config)["finetuned"]).params
    assert widths == {SMALL["channels"][-1] // 2}
    monkeypatch.setattr(finetuning._PrunedNetwork, "student", lambda self, config: self.model)
    slow = load(finetuning.finetune(config)["finetuned"]).params
    for name, tensor in slow.items():
        # Statistics of removed channels are never used. The normalisation after a convolution
        # cancels the convolution's bias: its gradient is rounding alone, which Adam scales up.
        if "running" not in name and not name.endswith(".0.bias"):
            torch.testing.assert_close(fast[name], tensor, rtol=1e-3, atol=1e-3)


def test_the_rebuilt_network_equals_the_masked_one() -> None:
    model = lively(channels=[4, 6, 8])
    groups, x = groups_of(model), torch.rand(2, 3, 32, 32)
    masks = {g.name: torch.arange(g.units) % 3 != 0 for g in groups}
    assert [g.positions for g in groups] == [(0,), (1,), (2,)]
    with masks_applied(model, groups, masks), torch.no_grad():
        expected = model(x)
    arch = Arch("mask_classifier", {"channels": [4, 6, 8]})
    small, small_arch = cut(model, arch, groups, masks)
    assert small_arch.args["channels"] == [2, 4, 5]
    with torch.no_grad():
        torch.testing.assert_close(small(x), expected)
        zero_removed(model, groups, masks)
        torch.testing.assert_close(model(x), expected)


def test_replay_returns_every_feature_that_a_channel_changes() -> None:
    model, x = lively(channels=[4, 6, 8]), torch.rand(2, 3, 32, 32)
    groups, names = groups_of(model), [f"blocks.{number}" for number in range(3)]
    replay = Replay(model, groups, names, x)
    for group in groups:
        masks = {g.name: torch.ones(g.units, dtype=torch.bool) for g in groups}
        masks[group.name][1] = False
        with masks_applied(model, groups, masks), Taps(model, names) as features, torch.no_grad():
            model(x)
        dense = replay.dense.features
        # A tolerance, not equality: both come from runs of their own.
        changed = {n: f for n, f in features.items() if not torch.allclose(f, dense[n], atol=1e-5)}
        replayed = replay.without(group, [1]).features
        assert changed.keys() == replayed.keys()
        assert all(torch.allclose(replayed[n], f, atol=1e-5) for n, f in changed.items())


def test_finding_groups_leaves_the_network_unchanged() -> None:
    model = lively(channels=[4, 6, 8]).train()
    model.get_parameter("head.bias").requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups_of(model)
    assert model.training
    assert not model.get_parameter("head.bias").requires_grad
    assert model.get_parameter("head.weight").requires_grad
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_channels_read_by_two_layers_have_two_mask_points() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            return self.b(a) * self.c(a)

    model, x = Forked(), torch.rand(1, 3, 4, 4)
    (group,) = channel_groups(model, x, "channels")
    assert sorted(gate.module for gate in group.mask_points) == ["b", "c"]
    masks = {group.name: torch.tensor([True, False, True])}
    with masks_applied(model, [group], masks), torch.no_grad():
        expected = model(x)
    zero_removed(model, [group], masks)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("criterion", ["optin", "taylor", "magnitude"])
def test_the_chain_meets_its_budget_with_any_criterion(tmp_path: Path, criterion: str) -> None:
    section = {"criterion": criterion, "calibration": {"patches": 8}}
    config = settings(tmp_path, mac_constraint=0.6, prune=section)
    train(config.model_copy(update={"distill": None}))
    result = prune(config)
    assert 0.4 < result.plan.macs / result.plan.dense_macs <= 0.6
    finetune(config)
    done = rebuild(config)
    assert done.difference < 1e-6
    metrics = load(tmp_path / "w/tiny_finetuned_logits.pth").record.metrics["toy"]
    right = sum(metrics[f"{name} as {name}"] for name in CLASSES)
    assert metrics["accuracy"] == right / 40
    assert sum(value for name, value in metrics.items() if " as " in name) == 40


def test_the_header_says_that_more_is_written_than_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(tmp_path, pruning_ratio=0.5)
    train(config.model_copy(update={"distill": None}))
    prune(config)
    caplog.set_level(logging.INFO, "kdp")
    finetune(config)
    sizes = re.search(r"parameters  ([\d,]+); ([\d,]+) in the file", caplog.text)
    assert sizes
    assert int(sizes[1].replace(",", "")) < int(sizes[2].replace(",", ""))


def test_channels_are_pruned_during_training(tmp_path: Path) -> None:
    dynamic = {"criterion": "taylor", "end_step": 4, "period": 2}
    config = settings(tmp_path, distill=None, mac_constraint=0.6, dynamic=dynamic)
    train(config)
    assert rebuild(config).difference < 1e-6


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_budget_on_chained_channels_is_met_with_updated_costs(
    tmp_path: Path, share: float
) -> None:
    arch = Arch("mask_classifier", {"image_size": 64})
    save(tmp_path / "w/tiny.pth", Artifact(lively().state_dict(), arch, make_record("train", {})))
    config = settings(tmp_path, model=None, mac_constraint=share)
    plan = prune(config).plan
    assert plan.macs == plan.planned_macs
    assert 0.95 * share < plan.macs / plan.dense_macs <= share
