"""Masks, replay, importance, search and rebuilding, on a small CATANet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdp.config import Config
from kdp.errors import KdpError
from kdp.models import build
from kdp.pruning.groups import Group, MaskPoint, Masks, full_masks
from kdp.pruning.importance import CRITERIA, ScoringContext, combine_scores, make_scorer
from kdp.pruning.importance.optin import combine_optin, manifold_distance, normalized_rows
from kdp.pruning.knapsack import Limits, unit_costs
from kdp.pruning.masks import check_masks, masks_applied, removed_are_zero, zero_removed
from kdp.pruning.rebuild import largest_difference, rebuild
from kdp.pruning.replay import Replay
from kdp.pruning.search import plan_pruning, plan_uniform
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.types import Arch
from tests.conftest import TINY

ARCH = Arch("catanet", TINY)
NO_LIMITS = Limits({}, {})


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    network = build("catanet", **TINY).double()
    network.train()(torch.rand(2, 3, 20, 20).double())  # gives the token centres a value
    return network.eval()


@pytest.fixture
def task() -> Task:
    return task_for(ARCH, Config.model_validate({"output": {"name": "test"}}))


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"lr": torch.rand(3, 3, 14, 12).double(), "hr": torch.rand(3, 3, 28, 24).double()}


@pytest.fixture
def context(model: nn.Module, task: Task, batch: dict[str, Tensor]) -> ScoringContext:
    return ScoringContext(model, task.groups(model), task, batch, seed=0)


def random_masks(groups: list[Group], keep: float = 0.5) -> Masks:
    generator = torch.Generator().manual_seed(3)
    return {g.name: torch.rand(g.units, generator=generator) < keep for g in groups}


def traced_without(
    context: ScoringContext, group: Group, unit: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Features and output of a whole forward pass with one unit masked."""
    masks = full_masks(list(context.groups))
    masks[group.name][unit] = False
    features: dict[str, Tensor] = {}
    handles = [
        context.model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: features.__setitem__(name, output)
        )
        for name in context.task.taps(context.model)
    ]
    with masks_applied(context.model, context.groups, masks), torch.no_grad():
        output = context.model(context.batch["lr"])
    for handle in handles:
        handle.remove()
    return features, output


def gram_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Manifold distillation as its formula says, mean over all pairs of rows."""
    s, t = (f.flatten(2).transpose(1, 2).reshape(-1, f.shape[1]) for f in (student, teacher))
    s, t = (rows / rows.norm(dim=1, keepdim=True) for rows in (s, t))
    return (t @ t.T - s @ s.T).square().mean()


def test_every_head_and_neuron_is_in_a_group(model: nn.Module, task: Task) -> None:
    units = dict.fromkeys(("tab_heads", "tab_neurons", "lrsa_heads", "lrsa_neurons"), 0)
    for group in task.groups(model):
        units[group.kind] += group.units
    assert units == {"tab_heads": 4, "tab_neurons": 12, "lrsa_heads": 4, "lrsa_neurons": 12}


def test_catanet_l_has_64_heads_and_1536_neurons(task: Task) -> None:
    with torch.device("meta"):
        groups = task.groups(build("catanet"))
    assert sum(g.units for g in groups if g.kind.endswith("heads")) == 64
    assert sum(g.units for g in groups if g.kind.endswith("neurons")) == 1536


def test_zeroed_weights_equal_gates(model: nn.Module, task: Task, batch: dict[str, Tensor]) -> None:
    groups = task.groups(model)
    masks = random_masks(groups)
    with torch.no_grad():
        dense = model(batch["lr"])
        with masks_applied(model, groups, masks):
            masked = model(batch["lr"])
        zero_removed(model, groups, masks)
        zeroed = model(batch["lr"])
    torch.testing.assert_close(zeroed, masked)
    assert not torch.allclose(dense, masked)
    assert removed_are_zero(model, groups, masks)


@pytest.mark.parametrize("emptied", [[], ["blocks.0.tab_heads", "blocks.1.lrsa_neurons"], "all"])
def test_rebuilt_equals_masked(
    model: nn.Module, task: Task, batch: dict[str, Tensor], emptied: list[str] | str
) -> None:
    groups = task.groups(model)
    masks = random_masks(groups)
    for group in groups:
        if emptied == "all" or group.name in emptied:
            masks[group.name][:] = False
    small, _ = rebuild(model, ARCH, groups, masks)
    with masks_applied(model, groups, masks), torch.no_grad():
        expected = model(batch["lr"])
        torch.testing.assert_close(small.double()(batch["lr"]), expected)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_difference_shows_a_network_cut_by_other_masks(
    model: nn.Module, task: Task, batch: dict[str, Tensor]
) -> None:
    groups = task.groups(model)
    masks = random_masks(groups)
    small, _ = rebuild(model, ARCH, groups, masks)
    assert largest_difference(model, small, groups, masks, batch["lr"]) < 1e-10
    other = {name: mask.flip(0) for name, mask in masks.items()}
    assert largest_difference(model, small, groups, other, batch["lr"]) > 1e-4


def test_masks_of_another_network_are_refused(model: nn.Module, task: Task) -> None:
    groups = task.groups(model)
    masks = full_masks(groups)
    check_masks(groups, masks, "masks.pth")
    with pytest.raises(KdpError, match=r"masks\.pth holds the masks of another network"):
        check_masks(groups, {**masks, "blocks.9.tab_heads": torch.ones(2)}, "masks.pth")
    wrong = {**masks, groups[0].name: torch.ones(99, dtype=torch.bool)}
    with pytest.raises(KdpError, match=groups[0].name):
        check_masks(groups, wrong, "masks.pth")


def test_replay_equals_a_whole_masked_pass(context: ScoringContext) -> None:
    replay = Replay(
        context.model, context.groups, context.task.taps(context.model), context.batch["lr"]
    )
    samples = len(context.batch["lr"])
    for group in context.groups:
        units = list(range(group.units))
        trace = replay.without(group, units)
        for i, unit in enumerate(units):
            features, output = traced_without(context, group, unit)
            part = slice(i * samples, (i + 1) * samples)
            torch.testing.assert_close(trace.output[part], output)
            for name in trace.features:
                torch.testing.assert_close(trace.features[name][part], features[name])


def test_replay_leaves_the_network_as_it_was(context: ScoringContext) -> None:
    with torch.no_grad():
        before = context.model(context.batch["lr"])
        replay = Replay(context.model, context.groups, [], context.batch["lr"])
        replay.without(context.groups[0], [0])
        torch.testing.assert_close(context.model(context.batch["lr"]), before, rtol=0, atol=0)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in context.model.modules())


def test_replay_computes_nothing_before_the_masked_place(context: ScoringContext) -> None:
    taps = context.task.taps(context.model)
    replay = Replay(context.model, context.groups, taps, context.batch["lr"])
    group = next(g for g in context.groups if g.name == "blocks.1.lrsa_neurons")
    calls: list[str] = []
    linears = {n: m for n, m in context.model.named_modules() if isinstance(m, nn.Conv2d)}
    original = nn.Conv2d._conv_forward

    def counted(self: nn.Conv2d, *args: Any) -> Tensor:
        calls.extend(name for name, module in linears.items() if module is self)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "_conv_forward", counted)
        replay.without(group, [0])
    assert calls == ["mid_convs.1", "upconv", "last_conv"]


def test_manifold_distance_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 5, 4, 3, generator=generator).double() for _ in range(2))
    distance = manifold_distance(normalized_rows(student, 1), normalized_rows(teacher, 1))
    torch.testing.assert_close(distance, gram_distance(student, teacher)[None])


def test_manifold_distance_agrees_with_the_golden_values(shared: Path) -> None:
    golden = torch.load(shared / "golden" / "optin_losses.pt", weights_only=True)
    student, teacher = (
        normalized_rows(golden[f"{who}_tokens"], 1) for who in ("student", "teacher")
    )
    distance = manifold_distance(student, teacher)
    torch.testing.assert_close(distance, -golden["manifold_mean"][None])
    rows = student.shape[1]
    torch.testing.assert_close(distance * rows**2, -golden["manifold_sum"][None])


def test_optin_equals_the_plain_loop(context: ScoringContext) -> None:
    with torch.no_grad():
        score = make_scorer("optin", context, {})
        replay = Replay(
            context.model, context.groups, context.task.taps(context.model), context.batch["lr"]
        )
        for group in context.groups:
            measured = score(group)
            taps = replay.taps_after(group)
            for unit in range(group.units):
                features, output = traced_without(context, group, unit)
                expected = [
                    gram_distance(features[name], replay.dense.features[name])
                    if name in taps
                    else torch.zeros(()).double()
                    for name in replay.dense.features
                ]
                expected.append((output - replay.dense.output).square().mean())
                torch.testing.assert_close(measured[unit], torch.stack(expected))


def test_optin_scores_do_not_depend_on_the_visiting_order(context: ScoringContext) -> None:
    scores = []
    for groups in (context.groups, list(reversed(context.groups))):
        score = make_scorer("optin", context, {})
        scores.append(combine_scores("optin", {g.name: score(g) for g in groups}, {}))
    assert all(torch.equal(scores[0][name], scores[1][name]) for name in scores[0])


def test_optin_output_share_weighs_the_output_term() -> None:
    parts = {"a": torch.tensor([[1.0, 10.0], [3.0, 30.0]]).double()}
    assert combine_optin(parts, output_share=0.0)["a"].tolist() == [1.0, 3.0]
    assert combine_optin(parts, output_share=1.0)["a"].tolist() == [2.0, 6.0]


def test_magnitude_is_the_norm_of_all_that_goes(context: ScoringContext) -> None:
    group = next(g for g in context.groups if g.name == "blocks.0.tab_neurons")
    for p, norm in ((1, lambda w: w.abs().sum()), (2, lambda w: w.square().sum())):
        scores = make_scorer("magnitude", context, {"p": p})(group)[:, 0]
        ffn = context.model.get_submodule("blocks.0.0.mlp.fn")
        conv = ffn.dwconv.depthwise_conv[0]
        first = (ffn.fc1.weight[0], ffn.fc1.bias[0], conv.weight[0], conv.bias[0])
        expected = sum(norm(w) for w in (*first, ffn.fc2.weight[:, 0]))
        torch.testing.assert_close(scores[0], expected.detach())


def test_taylor_is_gradient_times_weight(context: ScoringContext) -> None:
    model, batch = context.model, context.batch
    group = next(g for g in context.groups if g.name == "blocks.1.lrsa_heads")
    scores = make_scorer("taylor", context, {})(group)[:, 0]
    context.task.loss(model(batch["lr"]), batch).backward()
    fn = model.get_submodule("blocks.1.1.layer.0.fn")
    products = [(p.weight * p.weight.grad).abs() for p in (fn.to_q, fn.to_k, fn.to_v)]
    expected = products[0][:3].sum() + products[1][:3].sum() + products[2][:4].sum()
    expected += (fn.proj.weight * fn.proj.weight.grad).abs()[:, :4].sum()
    torch.testing.assert_close(scores[0], expected.detach())


def test_random_depends_on_the_seed_alone(context: ScoringContext) -> None:
    def scores(seed: int) -> Tensor:
        other = ScoringContext(context.model, context.groups, context.task, context.batch, seed)
        return torch.cat([make_scorer("random", other, {})(g) for g in context.groups])

    assert torch.equal(scores(1), scores(1))
    assert not torch.equal(scores(1), scores(2))


def test_unknown_criteria_and_options_are_named(context: ScoringContext) -> None:
    with pytest.raises(KdpError, match="optin, magnitude, taylor, random"):
        make_scorer("hessian", context, {})
    with pytest.raises(KdpError, match="power"):
        make_scorer("magnitude", context, {"power": 2})
    with pytest.raises(KdpError, match=r"prune\.options\.p: Input should be a valid number"):
        make_scorer("magnitude", context, {"p": "two"})


def toy_group(name: str, units: int, kind: str = "channels") -> Group:
    return Group(name, kind, units, (MaskPoint("gate", -1),), (), "widths")


def additive(costs: Mapping[str, int], base: int = 1000) -> Any:
    return lambda kept: base + sum(costs[name] * number for name, number in kept.items())


def test_search_keeps_most_importance_for_its_cost() -> None:
    """Against all choices: the greedy result is the best, or one unit short of it."""
    generator = torch.Generator().manual_seed(0)
    groups = [toy_group("a", 5), toy_group("b", 4), toy_group("c", 3)]
    scores = {g.name: torch.rand(g.units, generator=generator).double() for g in groups}
    costs = {"a": 70, "b": 200, "c": 500}
    count = additive(costs)
    plan = plan_pruning(groups, scores, costs, count, 0.6, Limits({"channels": 0}, {}))
    budget = 0.6 * count({g.name: g.units for g in groups})
    kept = {name: int(mask.sum()) for name, mask in plan.masks.items()}
    assert plan.macs == count(kept) <= budget
    tops = {n: s.sort(descending=True).values.cumsum(0).tolist() for n, s in scores.items()}
    totals = []
    for a in range(6):
        for b in range(5):
            for c in range(4):
                numbers = {"a": a, "b": b, "c": c}
                if count(numbers) <= budget:
                    totals.append(sum(tops[n][k - 1] for n, k in numbers.items() if k))
    found = sum(float(scores[name][mask].sum()) for name, mask in plan.masks.items())
    assert max(totals) - max(float(s.max()) for s in scores.values()) < found <= max(totals)


def test_search_removes_the_least_important_units() -> None:
    groups = [toy_group("a", 4)]
    scores = {"a": torch.tensor([3.0, 1.0, 4.0, 2.0])}
    plan = plan_pruning(groups, scores, {"a": 100}, additive({"a": 100}, 0), 0.5, NO_LIMITS)
    assert plan.masks["a"].tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        (Limits({"channels": 3}, {}), range(3, 9)),
        (Limits({}, {"channels": 4}), {4, 8}),
        (Limits({"channels": 5}, {"channels": 2}), {6, 8}),
    ],
)
def test_search_keeps_minimum_and_multiple(limits: Limits, allowed: Any) -> None:
    groups = [toy_group("a", 8), toy_group("b", 8)]
    scores = {"a": torch.arange(8.0), "b": torch.arange(8.0) * 100}
    costs = {"a": 10, "b": 10}
    plan = plan_pruning(groups, scores, costs, additive(costs, 0), 0.9, limits)
    assert plan.macs < plan.dense_macs
    assert all(int(mask.sum()) in allowed for mask in plan.masks.values())


@pytest.mark.parametrize(
    ("units", "ratio", "kept"), [(100, 0.9, 10), (30, 0.9, 3), (10, 0.8, 2), (7, 0.5, 3)]
)
def test_a_ratio_keeps_what_it_says(units: int, ratio: float, kept: int) -> None:
    groups, scores = [toy_group("a", units)], {"a": torch.arange(float(units))}
    plan = plan_uniform(groups, scores, additive({"a": 10}, 0), ratio, NO_LIMITS)
    assert int(plan.masks["a"].sum()) == kept


def test_no_limit_empties_what_a_network_cannot_lack() -> None:
    groups, scores = [replace(toy_group("a", 8), min_units=1)], {"a": torch.arange(8.0)}
    plan = plan_uniform(groups, scores, additive({"a": 10}, 0), 0.99, Limits({"channels": 0}, {}))
    assert int(plan.masks["a"].sum()) == 1


def test_search_says_what_is_reachable() -> None:
    groups = [toy_group("a", 4)]
    scores = {"a": torch.arange(4.0)}
    with pytest.raises(KdpError, match=r"cannot be reached.*0\.786"):
        plan_pruning(groups, scores, {"a": 100}, additive({"a": 100}), 0.5, NO_LIMITS)


def test_search_goes_by_the_true_count_where_costs_do_not_add_up() -> None:
    """Coupled layers: the cost is a product of widths, as in a chain of convolutions."""
    groups = [toy_group("a", 16), toy_group("b", 16)]
    scores = {"a": torch.arange(16.0) + 1, "b": torch.arange(16.0) + 1}
    count = lambda kept: 10 * kept["a"] + kept["a"] * kept["b"] * 9 + 10 * kept["b"]  # noqa: E731
    plan = plan_pruning(groups, scores, unit_costs(groups, count), count, 0.5, NO_LIMITS)
    dense = count({"a": 16, "b": 16})
    assert 0.42 * dense < plan.macs <= 0.5 * dense


def test_unit_costs_differ_between_blocks_as_attention_does(task: Task) -> None:
    from kdp.stages.prune.prune import macs_by_width

    with torch.device("meta"):
        groups = task.groups(build("catanet"))
    heads = [g for g in groups if g.kind == "tab_heads"]
    arch = Arch("catanet", {"upscale": 2})
    costs = unit_costs(heads[:4], macs_by_width(task, arch, groups))
    # q, k, v, projection; products with 2 x group tokens and with the centres; centre keys, values
    tokens = 64 * 64
    expected = []
    for size, centres in zip((256, 128, 64, 32), (16, 32, 64, 128), strict=True):
        linear = tokens * 40 * (9 + 10) + (tokens + size) * 40 * (9 + 10)
        expected.append(linear + tokens * 19 * (2 * size + centres) + centres * 40 * 19)
    assert [costs[g.name] for g in heads[:4]] == expected


def test_every_criterion_scores_every_unit(context: ScoringContext) -> None:
    for name in CRITERIA:
        score = make_scorer(name, context, {})
        scores = combine_scores(name, {g.name: score(g) for g in context.groups}, {})
        assert {n: len(s) for n, s in scores.items()} == {g.name: g.units for g in context.groups}
        assert all(torch.isfinite(s).all() and (s >= 0).all() for s in scores.values())


def test_work_that_takes_too_much_memory_is_stopped() -> None:
    """In a process of its own: the limit is beyond the most that one has ever had."""
    program = (
        "from kdp.pruning.resource_limit import limit_resources\n"
        "with limit_resources('hoarding', seconds=60, memory=1e8):\n"
        "    hoard = []\n"
        "    while True:\n"
        "        hoard.append(b'x' * 10**6)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.endswith("KdpError: hoarding was stopped at 0.1 GB of memory\n")
