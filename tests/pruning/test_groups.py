"""Groups of CATANet: all of its heads and hidden neurons."""

from __future__ import annotations

import torch
from torch import nn

from kdp.models import build, build_on_meta
from kdp.pruning.knapsack import unit_costs
from kdp.tasks.base import Task
from kdp.types import Arch


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


def test_unit_costs_of_heads_follow_the_attention_of_their_block(task: Task) -> None:
    from kdp.stages.prune.budget import macs_by_width

    sizes, centres = (256, 128, 64, 32), (16, 32, 64, 128)
    blocks = {"patch_sizes": (16, 20, 24, 28), "group_sizes": sizes, "num_tokens": centres}
    arch = Arch("catanet", {"upscale": 2, **blocks})
    groups = task.groups(build_on_meta(arch))
    heads = [g for g in groups if g.kind == "tab_heads"]
    costs = unit_costs(heads, macs_by_width(task, arch, groups))
    # q, k, v, projection; products with 2 x group tokens and with the centres; centre keys, values
    tokens = 64 * 64
    expected = []
    for size, count in zip(sizes, centres, strict=True):
        linear = tokens * 40 * (9 + 10) + (tokens + size) * 40 * (9 + 10)
        expected.append(linear + tokens * 19 * (2 * size + count) + count * 40 * 19)
    assert [costs[g.name] for g in heads] == expected
