"""The rebuilt network equals the masked one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdp.pruning.masks import masks_applied
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


def test_the_difference_reveals_a_network_cut_by_other_masks(
    model: nn.Module, task: Task, batch: dict[str, Tensor]
) -> None:
    groups = task.groups(model)
    masks = random_masks(groups)
    small, _ = rebuild(model, ARCH, groups, masks)
    assert largest_difference(model, small, groups, masks, batch["lr"]) < 1e-10
    other = {name: mask.flip(0) for name, mask in masks.items()}
    assert largest_difference(model, small, groups, other, batch["lr"]) > 1e-4
