"""MACs of narrowed networks are counted from shapes only where that equals a real count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdp.measure.complexity import count_macs_of
from kdp.models import MODELS, build_on_meta
from kdp.pruning.groups import Group, MaskPoint, ParamSlice
from kdp.pruning.knapsack import MacCounter
from kdp.pruning.rebuild import smaller_arch
from kdp.stages.prune import budget
from kdp.stages.prune.budget import macs_by_width
from kdp.tasks import task_for
from kdp.types import Arch
from tests.conftest import TINY
from tests.runs import config

ARCH = Arch("catanet", {**TINY, "tab_heads": 3, "lrsa_heads": 4})


class Squared(nn.Module):
    """The product of the units with themselves grows with the square of their number."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, units), nn.Linear(units, 8)

    def forward(self, x: Tensor) -> Tensor:
        units = self.inner(x)
        return self.outer(units @ (units.transpose(-1, -2) @ units))


class Example:
    """The part of a task that is asked."""

    input_size = (1, 16, 8)

    def example(self, size: tuple[int, ...]) -> Tensor:
        return torch.zeros(size)


def built(arch: Arch, groups: list[Group], kept: dict[str, int], task: Any) -> int:
    full = {group.name: group.units for group in groups}
    return count_macs_of(
        smaller_arch(arch, groups, {**full, **kept}), task.example(task.input_size)
    )


@pytest.fixture
def catanet(tmp_path: Path) -> tuple[Any, list[Group], MacCounter]:
    task = task_for(ARCH, config(tmp_path))
    groups = task.groups(build_on_meta(ARCH))
    return task, groups, macs_by_width(task, ARCH, groups)


@pytest.mark.parametrize("seed", range(4))
def test_products_of_attention_are_counted_from_shapes(
    catanet: tuple[Any, list[Group], MacCounter], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, groups, count = catanet
    random = torch.Generator().manual_seed(seed)
    kept = {g.name: int(torch.randint(1, g.units + 1, (1,), generator=random)) for g in groups}
    expected = built(ARCH, groups, kept, task)
    monkeypatch.delattr(budget, "count_macs_of")
    assert count(kept) == expected


def test_a_network_without_the_heads_of_a_block_is_built(
    catanet: tuple[Any, list[Group], MacCounter],
) -> None:
    """Without heads, the normalization and the convolution beside them go too."""
    task, groups, count = catanet
    heads = next(group for group in groups if group.kind == "tab_heads")
    assert count({heads.name: 0}) == built(ARCH, groups, {heads.name: 0}, task)
    assert count({heads.name: 0}) < 2 * count({heads.name: 1}) - count({heads.name: 2})


def test_a_network_that_shapes_do_not_explain_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "squared", Squared)
    arch, task = Arch("squared", {"units": 6}), Example()
    slices = (ParamSlice("inner.weight", 0), ParamSlice("outer.weight", 1))
    group = Group("units", "units", 6, (MaskPoint("outer", -1),), slices, "units")
    count = macs_by_width(task, arch, [group])  # type: ignore[arg-type]
    assert [count({"units": n}) for n in (1, 2, 5)] == [
        16 * 8 * 2 * n + 16 * n * n * 2 for n in (1, 2, 5)
    ]
