"""The rebuilt network equals the masked one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from kdp.measure.difference import relative_difference
from kdp.pruning.masks import masks_applied, zero_removed
from kdp.pruning.rebuild import largest_difference, rebuild
from kdp.tasks.base import Task
from kdp.types import Arch
from tests.conftest import TINY
from tests.pruning.helpers import random_masks

ARCH = Arch("catanet", TINY)


@pytest.mark.parametrize("emptied", [[], ["blocks.0.tab_heads", "blocks.1.lrsa_neurons"], "all"])
def test_the_rebuilt_network_gives_the_masked_output(
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


def test_the_difference_reveals_units_that_were_not_zero(
    model: nn.Module, task: Task, batch: dict[str, Tensor]
) -> None:
    groups = task.groups(model)
    masks = random_masks(groups)
    small, _ = rebuild(model, ARCH, groups, masks)
    assert largest_difference(model, small, batch["lr"]) > 1e-4
    zero_removed(model, groups, masks)
    small, _ = rebuild(model, ARCH, groups, masks)
    assert largest_difference(model, small, batch["lr"]) < 1e-10


@pytest.mark.parametrize(
    ("output", "expected", "difference"),
    [(0.0, 0.0, 0.0), (3.0, 2.0, 0.5), (1.0, 0.0, math.inf), (-2.0, -2.0, 0.0)],
)
def test_differences_are_relative_to_the_expected_output(
    output: float, expected: float, difference: float
) -> None:
    """Outputs that are zero everywhere are equal."""
    both = torch.full((2, 3), output), torch.full((2, 3), expected)
    assert relative_difference(*both) == difference
    assert math.isnan(relative_difference(both[0], torch.full((2, 3), math.nan)))
