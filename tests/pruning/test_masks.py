"""Masks against zeroed weights, and masks of another network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.pruning.groups import full_masks
from kdp.pruning.masks import check_masks, masks_applied, removed_are_zero, zero_removed
from kdp.tasks.base import Task
from tests.pruning.helpers import random_masks


def test_zeroed_weights_give_the_masked_output(
    model: nn.Module, task: Task, batch: dict[str, Tensor]
) -> None:
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


def test_masks_of_another_network_are_refused(model: nn.Module, task: Task) -> None:
    groups = task.groups(model)
    masks = full_masks(groups)
    check_masks(groups, masks, "masks.pth")
    with pytest.raises(KdpError, match=r"masks\.pth holds the masks of another network"):
        check_masks(groups, {**masks, "blocks.9.tab_heads": torch.ones(2)}, "masks.pth")
    wrong = {**masks, groups[0].name: torch.ones(99, dtype=torch.bool)}
    with pytest.raises(KdpError, match=groups[0].name):
        check_masks(groups, wrong, "masks.pth")
