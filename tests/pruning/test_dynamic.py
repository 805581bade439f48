"""Pruning while training: criteria, schedule, mask updates, regrowth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from kdp.config import DynamicConfig
from kdp.pruning import dynamic
from kdp.pruning.dynamic import GATE_CRITERIA, DynamicPruner, GatedGroup, cubic_schedule
from kdp.pruning.gates import add_gates
from kdp.pruning.groups import Group, MaskPoint, ParamSlice
from kdp.pruning.knapsack import Limits

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


def dynamic_pruner(model: nn.Module, **changes: Any) -> DynamicPruner:
    """Prunes the four neurons of `two_layers`, which cost one MAC each, to two."""
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


def test_the_budget_falls_along_a_cubic_schedule() -> None:
    shares = [cubic_schedule(step, 10, 50, 0.4) for step in (0, 10, 20, 30, 50, 90)]
    assert shares == pytest.approx([1, 1, 0.4 + 0.6 * 0.75**3, 0.4 + 0.6 * 0.5**3, 0.4, 0.4])


def test_gate_criteria_match_their_formulas() -> None:
    model = two_layers()
    gate = add_gates(model, [LINEAR])["hidden"]
    gate.gate.data = torch.tensor([1.0, -2.0, 0.5, 0.0])
    first, second = model[0].weight, model[1].parametrizations["weight"].original
    state = GatedGroup(LINEAR, gate, [(LINEAR.slices[0], first), (LINEAR.slices[1], second)], 3.0)
    scores = {name: measure(state) for name, measure in GATE_CRITERIA.items() if name != "taylor"}
    factors = gate.gate.detach().abs().double()
    torch.testing.assert_close(scores["gate"], 3 * factors)
    norms = first.detach().abs().sum(1) + second.detach().abs().sum(0)
    torch.testing.assert_close(scores["magnitude"], norms.double() * factors)


def test_taylor_predicts_the_loss_without_a_unit() -> None:
    model, x = two_layers().double(), torch.randn(8, 3).double()
    gate = add_gates(model, [LINEAR])["hidden"].double()
    weights = [(LINEAR.slices[0], model[0].weight)]
    loss = model(x).sum()
    loss.backward()
    scores = GATE_CRITERIA["taylor"](GatedGroup(LINEAR, gate, weights, 1.0))
    for unit in range(4):
        gate.mask.fill_(True)[unit] = False
        change = float((model(x).sum() - loss).detach())
        assert float(scores[unit]) == pytest.approx(abs(change), rel=1e-9)


def test_the_smallest_gates_are_removed_first() -> None:
    model = two_layers()
    pruner = dynamic_pruner(model)
    gate = pruner.gated_groups[0].gate
    gate.gate.data = torch.tensor([0.9, 0.1, 0.8, 0.2])
    kept = []
    for step in range(1, 6):
        pruner.after_step(step)
        kept.append(gate.mask.tolist())
    assert kept[0] == [True, False, True, False]  # 0.711 of four MACs pays for two units
    assert pruner.mac_share() == 0.5


@pytest.mark.parametrize(("regrowth", "comes_back"), [(True, True), (False, False)])
def test_a_removed_unit_comes_back_only_with_regrowth(regrowth: bool, comes_back: bool) -> None:
    model = two_layers()
    pruner = dynamic_pruner(model, regrowth=regrowth)
    gate = pruner.gated_groups[0].gate
    gate.gate.data = torch.tensor([0.9, 0.1, 0.8, 0.2])
    pruner.after_step(1)
    assert not gate.mask[1]
    gate.gate.data = torch.tensor([0.9, 2.0, 0.1, 0.2])
    pruner.after_step(2)
    assert bool(gate.mask[1]) is comes_back


def test_without_regrowth_removed_units_rank_below_all_others() -> None:
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
    pruner = DynamicPruner(
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
        pruner.after_step(step)
        gates["g1"].gate.data += 1  # now the kept units of this group are the more important ones
    assert pruner.mac_share() == 0.5


def test_masks_are_final_after_the_end_step() -> None:
    model = two_layers()
    pruner = dynamic_pruner(model)
    gate = pruner.gated_groups[0].gate
    gate.gate.data = torch.tensor([0.9, 0.1, 0.8, 0.2])
    for step in range(1, 5):
        pruner.after_step(step)
    gate.gate.data = torch.tensor([0.0, 5.0, 0.0, 5.0])
    pruner.after_step(5)
    assert gate.mask.tolist() == [True, False, True, False]


def test_importance_is_the_mean_since_the_last_update(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([[4.0, 1, 1, 1], [0.0, 3, 3, 1]])
    monkeypatch.setitem(
        dynamic.GATE_CRITERIA, "fixed", lambda state: torch.tensor(next(values)).double()
    )
    pruner = dynamic_pruner(two_layers(), criterion="fixed", end_step=2, period=2)
    pruner.after_step(1)
    assert pruner.masks["hidden"].all()
    pruner.after_step(2)
    assert pruner.masks["hidden"].tolist() == [True, True, False, False]


def test_infinite_gradients_are_not_measured() -> None:
    pruner = dynamic_pruner(two_layers(), criterion="taylor")
    gate = pruner.gated_groups[0].gate
    gate.gate.grad = torch.full((4,), float("inf"))
    pruner.after_step(1)
    assert gate.score.isfinite().all()
    assert gate.importance.isfinite().all()
