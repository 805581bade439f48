"""Parameters are counted as deployed: the same before and after `kdp rebuild`, fused or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kdp.artifacts import Artifact
from kdp.config import Config
from kdp.measure.complexity import count_parameters
from kdp.models import build, fuse
from kdp.pruning.groups import full_masks
from kdp.pruning.identity import MasksIdentity, masked_extra
from kdp.pruning.masks import zero_removed
from kdp.pruning.rebuild import rebuild
from kdp.stages.compare.rows import comparison_rows
from kdp.stages.deployed import deployed
from kdp.tasks import task_for
from kdp.types import Arch
from tests.conftest import TINY
from tests.stages.test_compare_rows import compared, network, rows

MOBILE = {"stem": 4, "channels": [4, 6], "hidden": [6, 8], "strides": [[1, 1], [2, 2]]}
NETWORKS: dict[str, Any] = {
    "catanet": TINY,
    "mask_classifier": {"channels": [4, 6], "image_size": 16},
    "rep_mobile": MOBILE,
    "cp_mobile": MOBILE,
}


def _network(name: str) -> tuple[Any, Arch, Any]:
    torch.manual_seed(0)
    arch = Arch(name, NETWORKS[name])
    config = Config.model_validate({"output": {"name": "a"}})
    model = build(name, **arch.args).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    return model, arch, task_for(arch, config)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_masked_network_counts_what_stays(name: str) -> None:
    model, arch, task = _network(name)
    groups = task.groups(model)
    masks = full_masks(groups)
    for mask in masks.values():
        mask[0] = False
    zero_removed(model, groups, masks)
    extra = masked_extra(model, groups, masks, MasksIdentity(None, None))
    small, small_arch = deployed(model, arch, Artifact(model.state_dict(), extra=extra), task)
    expected, expected_arch = fuse(*rebuild(model, arch, groups, masks))
    assert small_arch == expected_arch
    assert count_parameters(small) == count_parameters(expected) < count_parameters(model)


@pytest.mark.parametrize("name", ["rep_mobile", "cp_mobile"])
def test_branches_and_normalisations_are_counted_fused(name: str) -> None:
    model, arch, task = _network(name)
    small, small_arch = deployed(model, arch, Artifact(model.state_dict()), task)
    assert small_arch == arch.with_args(fused=True)
    assert count_parameters(small) < count_parameters(model)


def test_a_network_without_either_is_counted_as_it_is() -> None:
    model, arch, task = _network("mask_classifier")
    assert deployed(model, arch, Artifact(model.state_dict()), task) == (model, arch)


def test_the_table_names_both_numbers_where_they_differ() -> None:
    masked = replace(network("a", 10), deployed_parameters=5_000)
    shown = rows(compared(network("b", 10), masked))
    assert shown["parameters"].values == [8_556, 8_556]
    assert shown["parameters, deployed"].values == [8_556, 5_000]
    assert "without removed units" in shown["parameters, deployed"].how
    equal = [row.name for row in comparison_rows(compared(network("a", 1), network("b", 1)))]
    assert "parameters, deployed" not in equal


def test_operations_are_named_by_what_counted_them() -> None:
    shown = rows(compared(replace(network("a", 10), module_macs=7)))
    assert shown["MACs, all"].values == [10]
    assert shown["MACs, modules"].values == [7]
    assert (shown["FLOPs, all"].values, shown["FLOPs, all"].how) == ([20], "2 x MACs, all")
    assert (shown["FLOPs, modules"].values, shown["FLOPs, modules"].how) == (
        [14],
        "2 x MACs, modules",
    )


def test_latency_is_named_by_its_statistic() -> None:
    shown = rows(compared(network("a", 10)))
    assert shown["latency, median"].values == [10.0]
    assert shown["latency, mean"].values == [10.2]
    assert "latency" not in shown
