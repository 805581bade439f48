"""Learnable gates: what they compute, their losses, folding."""

from __future__ import annotations

import copy

import pytest
import torch

from kdp.models import build
from kdp.pruning.gates import Gate, add_gates, fold_gates, group_lasso, l1
from kdp.pruning.groups import ParamSlice
from kdp.pruning.masks import masks_applied, zero_removed
from kdp.tasks.super_resolution.groups import catanet_groups
from tests.conftest import TINY


def test_gates_of_one_do_not_change_the_output() -> None:
    torch.manual_seed(0)
    model = build("catanet", **TINY).eval()
    x = torch.rand(1, 3, 12, 12)
    before = model(x)
    add_gates(model, catanet_groups(model))
    # A weight times one has the same values, but not the same memory layout: kernels may sum in
    # another order.
    torch.testing.assert_close(model(x), before)


def test_masked_gates_equal_masks_and_fold_into_the_weights() -> None:
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
    params, folded_masks = fold_gates(with_gates.state_dict(), groups)
    assert all(torch.equal(folded_masks[name], mask) for name, mask in masks.items())
    model.load_state_dict(params)
    zero_removed(model, groups, folded_masks)
    torch.testing.assert_close(model(x), expected)


def test_the_gate_of_a_removed_unit_still_gets_a_gradient() -> None:
    weight = torch.randn(2, 4)
    gate = Gate(4, ParamSlice("1.weight", 1))
    gate.mask[0] = False
    scaled = gate(weight)
    assert (scaled[:, 0] == 0).all()
    scaled.sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(gate.gate.grad, weight.sum(0))


def test_sparsity_losses_match_their_formulas() -> None:
    gates = [Gate(2, ParamSlice("x", 0)), Gate(3, ParamSlice("x", 0))]
    for gate, values in zip(gates, ([0.5, -1.5], [0.0, 3.0, -4.0]), strict=True):
        gate.gate.data = torch.tensor(values)
    costs = [10.0, 1.0]
    assert float(l1(gates, costs).detach()) == pytest.approx((10 * 2 + 1 * 7) / (2 * 10 + 3))
    lengths = 20 * (2.5 / 2) ** 0.5 + 3 * 5 / 3**0.5
    assert float(group_lasso(gates, costs).detach()) == pytest.approx(lengths / 23)
