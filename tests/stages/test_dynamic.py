"""Pruning while training: gates, criteria, the ramp, regrowth, and the chain's files."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdp.artifacts import load
from kdp.config import Config, DynamicConfig
from kdp.errors import KdpError
from kdp.measure.complexity import count_macs_of
from kdp.models import build
from kdp.models.loading import load_network
from kdp.pruning import dynamic
from kdp.pruning.dynamic import GATE_CRITERIA, DynamicPruner, GatedGroup, cubic_schedule
from kdp.pruning.gates import Gate, add_gates, fold_gates, group_lasso, l1
from kdp.pruning.groups import Group, MaskPoint, ParamSlice
from kdp.pruning.knapsack import Limits
from kdp.pruning.masks import masks_applied, removed_are_zero, zero_removed
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train.train import train
from kdp.tasks.super_resolution.groups import catanet_groups
from tests.conftest import TINY
from tests.runs import SHORT, complaints, config, config_file, run_kdp, start_kdp, wait_until

LINEAR = Group(
    "hidden",
    "neurons",
    4,
    (MaskPoint("1", -1),),
    (ParamSlice("0.weight", 0), ParamSlice("1.weight", 1)),
    "hidden",
)


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2))


def pruner(model: nn.Module, **changes: Any) -> DynamicPruner:
    """Prunes the four neurons of `two_layers`, which cost one operation each, to two."""
    settings = {"criterion": "gate", "end_step": 4, "period": 1, **changes}
    return DynamicPruner(
        DynamicConfig.model_validate(settings),
        model,
        [LINEAR],
        add_gates(model, [LINEAR]),
        {"hidden": 1.0},
        lambda kept: kept["hidden"],
        0.5,
        Limits({}, {}),
    )


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


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_ramp_is_a_cube() -> None:
    shares = [cubic_schedule(step, 10, 50, 0.4) for step in (0, 10, 20, 30, 50, 90)]
    assert shares == pytest.approx([1, 1, 0.4 + 0.6 * 0.75**3, 0.4 + 0.6 * 0.5**3, 0.4, 0.4])


def test_open_gates_change_nothing() -> None:
    torch.manual_seed(0)
    model = build("catanet", **TINY).eval()
    x = torch.rand(1, 3, 12, 12)
    before = model(x)
    add_gates(model, catanet_groups(model))
    assert torch.equal(model(x), before)


def test_a_closed_gate_is_a_masked_unit_and_folds_into_the_weights() -> None:
    torch.manual_seed(0)
    model = build("catanet", **TINY).eval()
    groups, x = catanet_groups(model), torch.rand(1, 3, 12, 12)
    masks = {g.name: torch.arange(g.units) > 0 for g in groups}
    with masks_applied(model, groups, masks):
        expected = model(x)
    with_gates = copy.deepcopy(model)
    for name, gate in add_gates(with_gates, groups).items():
        gate.mask.copy_(masks[name])
    torch.testing.assert_close(with_gates(x), expected)
    params, found = fold_gates(with_gates.state_dict(), groups)
    assert same(found, masks)
    model.load_state_dict(params)
    zero_removed(model, groups, found)
    torch.testing.assert_close(model(x), expected)


def test_a_removed_gate_still_learns() -> None:
    weight = torch.randn(2, 4)
    gate = Gate(4, ParamSlice("1.weight", 1))
    gate.mask[0] = False
    scaled = gate(weight)
    assert (scaled[:, 0] == 0).all()
    scaled.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(gate.gate.grad, weight.sum(0))


def test_losses_on_gates_are_their_formulas() -> None:
    gates = [Gate(2, ParamSlice("x", 0)), Gate(3, ParamSlice("x", 0))]
    for gate, values in zip(gates, ([0.5, -1.5], [0.0, 3.0, -4.0]), strict=True):
        gate.gate.data = torch.tensor(values)
    costs = [10.0, 1.0]
    assert float(l1(gates, costs).detach()) == pytest.approx((10 * 2 + 1 * 7) / (2 * 10 + 3))
    lengths = 20 * (2.5 / 2) ** 0.5 + 3 * 5 / 3**0.5
    assert float(group_lasso(gates, costs).detach()) == pytest.approx(lengths / 23)


def test_criteria_are_their_formulas() -> None:
    model = two_layers()
    gate = add_gates(model, [LINEAR])["hidden"]
    gate.gate.data = torch.tensor([1.0, -2.0, 0.5, 0.0])
    first, second = model[0].weight, model[1].parametrizations["weight"].original
    state = GatedGroup(LINEAR, gate, [(LINEAR.slices[0], first), (LINEAR.slices[1], second)], 3.0)
    found = {name: measure(state) for name, measure in GATE_CRITERIA.items() if name != "taylor"}
    factors = gate.gate.detach().abs().double()
    torch.testing.assert_close(found["gate"], 3 * factors)
    norms = first.detach().abs().sum(1) + second.detach().abs().sum(0)
    torch.testing.assert_close(found["magnitude"], norms.double() * factors)


def test_taylor_predicts_the_loss_without_a_unit() -> None:
    model, x = two_layers().double(), torch.randn(8, 3).double()
    gate = add_gates(model, [LINEAR])["hidden"].double()
    weights = [(LINEAR.slices[0], model[0].weight)]
    loss = model(x).sum()
    loss.backward()
    found = GATE_CRITERIA["taylor"](GatedGroup(LINEAR, gate, weights, 1.0))
    for unit in range(4):
        gate.mask.fill_(True)[unit] = False
        change = float((model(x).sum() - loss).detach())
        assert float(found[unit]) == pytest.approx(abs(change), rel=1e-9)


def test_the_least_gates_close_along_the_ramp() -> None:
    model = two_layers()
    subject = pruner(model)
    gate = subject.gated_groups[0].gate
    gate.gate.data = torch.tensor([0.9, 0.1, 0.8, 0.2])
    kept = []
    for step in range(1, 6):
        subject.after_step(step)
        kept.append(gate.mask.tolist())
    assert kept[0] == [True, False, True, False]  # 0.711 of four leaves room for two
    assert subject.mac_share() == 0.5


@pytest.mark.parametrize(("regrowth", "comes_back"), [(True, True), (False, False)])
def test_a_removed_unit_comes_back_only_with_regrowth(regrowth: bool, comes_back: bool) -> None:
    model = two_layers()
    subject = pruner(model, regrowth=regrowth)
    gate = subject.gated_groups[0].gate
    gate.gate.data = torch.tensor([0.9, 0.1, 0.8, 0.2])
    subject.after_step(1)
    assert not gate.mask[1]
    gate.gate.data = torch.tensor([0.9, 2.0, 0.1, 0.2])
    subject.after_step(2)
    assert bool(gate.mask[1]) is comes_back


def test_what_stays_removed_ranks_below_every_group() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))
    groups = [
        Group(
            f"g{i}",
            "n",
            4,
            (MaskPoint(f"{i + 1}", -1),),
            (ParamSlice(f"{i + 1}.weight", 1),),
            "n",
            (i,),
            2,
        )
        for i in range(2)
    ]
    gates, cost = add_gates(model, groups), 1e6
    subject = DynamicPruner(
        DynamicConfig(end_step=4, period=1, regrowth=False),
        model,
        groups,
        gates,
        {group.name: cost for group in groups},
        lambda kept: int(cost * sum(kept.values())),
        0.5,
        Limits({"n": 0}, {}),
    )
    gates["g0"].gate.data = torch.tensor([0.9, 0.8, 0.7, 0.6])
    gates["g1"].gate.data = torch.tensor([0.4, 0.3, 0.2, 0.1])
    for step in range(1, 5):
        subject.after_step(step)
        gates["g1"].gate.data += 1  # the rest of this group becomes the better one
    assert subject.mac_share() == 0.5


def test_nothing_changes_after_the_ramp() -> None:
    model = two_layers()
    subject = pruner(model)
    gate = subject.gated_groups[0].gate
    gate.gate.data = torch.tensor([0.9, 0.1, 0.8, 0.2])
    for step in range(1, 5):
        subject.after_step(step)
    gate.gate.data = torch.tensor([0.0, 5.0, 0.0, 5.0])
    subject.after_step(5)
    assert gate.mask.tolist() == [True, False, True, False]


def test_importance_is_the_mean_since_the_last_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([[4.0, 1, 1, 1], [0.0, 3, 3, 1]])
    monkeypatch.setitem(
        dynamic.GATE_CRITERIA, "told", lambda state: torch.tensor(next(values)).double()
    )
    subject = pruner(two_layers(), criterion="told", end_step=2, period=2)
    subject.after_step(1)
    assert subject.masks["hidden"].all()
    subject.after_step(2)
    assert subject.masks["hidden"].tolist() == [True, True, False, False]


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


def test_the_best_is_one_that_keeps_the_budget(tmp_path: Path) -> None:
    # A learning rate that spoils the network makes the first validation the best one.
    train(run(tmp_path, train={**SHORT, "lr": 0.1, "steps": 4, "validate_every": 1}))
    model, _, artifact = load_network(tmp_path / "weights/tiny.pth")
    masks = load(tmp_path / "weights/tiny_pruning_masks.pth").extra["masks"]
    assert removed_are_zero(model, catanet_groups(model), masks)
    assert artifact.record.metrics


@pytest.mark.parametrize("criterion", ["gate", "taylor"])
def test_a_resumed_run_prunes_the_same(tmp_path: Path, criterion: str) -> None:
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
    assert same(a, b)
    a, b = (
        load(tmp_path / n / "weights/tiny_pruning_masks.pth").extra["masks"]
        for n in ("whole", "resumed")
    )
    assert same(a, b)


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
def test_settings_that_cannot_work_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    settings = run(tmp_path, dynamic=changes.get("dynamic", {}))
    rest = {key: value for key, value in changes.items() if key != "dynamic"}
    plain = {**settings.model_dump(mode="json"), **rest}
    with pytest.raises(KdpError, match=message):
        train(Config.model_validate(plain))


def test_an_end_before_the_start_is_one_line(tmp_path: Path) -> None:
    file = config_file(tmp_path, dynamic={"start_step": 5, "end_step": 5})
    done = run_kdp("train", "--config", str(file))
    assert done.returncode == 2
    (line,) = complaints(done.stderr)
    assert "end_step (5) must be after start_step" in line


def test_a_step_that_overflowed_is_not_measured() -> None:
    subject = pruner(two_layers(), criterion="taylor")
    gate = subject.gated_groups[0].gate
    gate.gate.grad = torch.full((4,), float("inf"))
    subject.after_step(1)
    assert gate.score.isfinite().all()
    assert gate.importance.isfinite().all()


def test_a_run_with_gates_does_not_resume_one_without(tmp_path: Path) -> None:
    train(run(tmp_path, train={**SHORT, "steps": 4}))
    plain = run(tmp_path).model_dump(mode="json")
    with pytest.raises(KdpError, match="other settings"):
        train(Config.model_validate({**plain, "dynamic": None}), resume=True)


def test_prune_refuses_a_configuration_that_prunes_while_training(tmp_path: Path) -> None:
    settings = run(tmp_path).model_copy(update={"teacher": tmp_path / "teacher.pth"})
    with pytest.raises(KdpError, match="prunes while it trains"):
        prune(settings)


def test_a_missed_budget_leaves_old_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "weights/tiny.pth"
    old.parent.mkdir()
    old.write_bytes(b"old")
    monkeypatch.setattr(DynamicPruner, "after_step", lambda self, step: None)
    with pytest.raises(KdpError, match="misses"):
        train(run(tmp_path))
    assert old.read_bytes() == b"old"
