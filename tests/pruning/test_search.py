"""The search for masks within a budget, on toy groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kdp.errors import KdpError
from kdp.pruning.knapsack import Limits, unit_costs
from kdp.pruning.search import plan_pruning, plan_uniform
from tests.pruning.helpers import additive_macs, toy_group

NO_LIMITS = Limits({}, {})


def test_search_is_optimal_but_for_one_unit() -> None:
    """Against all choices: the greedy result is the best, or one unit short of it."""
    generator = torch.Generator().manual_seed(0)
    groups = [toy_group("a", 5), toy_group("b", 4), toy_group("c", 3)]
    scores = {g.name: torch.rand(g.units, generator=generator).double() for g in groups}
    costs = {"a": 70, "b": 200, "c": 500}
    count = additive_macs(costs)
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
    score = sum(float(scores[name][mask].sum()) for name, mask in plan.masks.items())
    assert max(totals) - max(float(s.max()) for s in scores.values()) < score <= max(totals)


def test_search_removes_the_least_important_units() -> None:
    groups = [toy_group("a", 4)]
    scores = {"a": torch.tensor([3.0, 1.0, 4.0, 2.0])}
    plan = plan_pruning(groups, scores, {"a": 100}, additive_macs({"a": 100}, 0), 0.5, NO_LIMITS)
    assert plan.masks["a"].tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("limits", "allowed"),
    [
        (Limits({"channels": 3}, {}), range(3, 9)),
        (Limits({}, {"channels": 4}), {4, 8}),
        (Limits({"channels": 5}, {"channels": 2}), {6, 8}),
    ],
)
def test_search_respects_min_units_and_round_to(limits: Limits, allowed: Any) -> None:
    groups = [toy_group("a", 8), toy_group("b", 8)]
    scores = {"a": torch.arange(8.0), "b": torch.arange(8.0) * 100}
    costs = {"a": 10, "b": 10}
    plan = plan_pruning(groups, scores, costs, additive_macs(costs, 0), 0.9, limits)
    assert plan.macs < plan.dense_macs
    assert all(int(mask.sum()) in allowed for mask in plan.masks.values())


def test_an_unreachable_budget_names_the_smallest_reachable_one() -> None:
    groups = [toy_group("a", 4)]
    scores = {"a": torch.arange(4.0)}
    with pytest.raises(KdpError, match=r"cannot be reached.*0\.786"):
        plan_pruning(groups, scores, {"a": 100}, additive_macs({"a": 100}), 0.5, NO_LIMITS)


def test_search_uses_counted_macs_where_costs_do_not_add_up() -> None:
    """Coupled layers: the cost is a product of widths, as in a chain of convolutions."""
    groups = [toy_group("a", 16), toy_group("b", 16)]
    scores = {"a": torch.arange(16.0) + 1, "b": torch.arange(16.0) + 1}
    count = lambda kept: 10 * kept["a"] + kept["a"] * kept["b"] * 9 + 10 * kept["b"]  # noqa: E731
    plan = plan_pruning(groups, scores, unit_costs(groups, count), count, 0.5, NO_LIMITS)
    dense = count({"a": 16, "b": 16})
    assert 0.42 * dense < plan.macs <= 0.5 * dense


@pytest.mark.parametrize(
    ("units", "ratio", "kept"), [(100, 0.9, 10), (30, 0.9, 3), (10, 0.8, 2), (7, 0.5, 3)]
)
def test_a_pruning_ratio_keeps_the_rest_rounded_down(units: int, ratio: float, kept: int) -> None:
    groups, scores = [toy_group("a", units)], {"a": torch.arange(float(units))}
    plan = plan_uniform(groups, scores, additive_macs({"a": 10}, 0), ratio, NO_LIMITS)
    assert int(plan.masks["a"].sum()) == kept


def test_limits_never_go_below_the_fewest_units_of_a_group() -> None:
    groups, scores = [replace(toy_group("a", 8), min_units=1)], {"a": torch.arange(8.0)}
    plan = plan_uniform(
        groups, scores, additive_macs({"a": 10}, 0), 0.99, Limits({"channels": 0}, {})
    )
    assert int(plan.masks["a"].sum()) == 1
