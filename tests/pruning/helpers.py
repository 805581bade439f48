"""Helpers of the pruning tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdp.pruning.groups import Group, MaskPoint, Masks, full_masks
from kdp.pruning.importance import ScoringContext
from kdp.pruning.masks import masks_applied


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
    """Manifold distillation by its formula: mean over all pairs of rows."""
    s, t = (f.flatten(2).transpose(1, 2).reshape(-1, f.shape[1]) for f in (student, teacher))
    s, t = (rows / rows.norm(dim=1, keepdim=True) for rows in (s, t))
    return (t @ t.T - s @ s.T).square().mean()


def toy_group(name: str, units: int, kind: str = "channels") -> Group:
    return Group(name, kind, units, (MaskPoint("gate", -1),), (), "widths")


def additive_macs(costs: Mapping[str, int], base: int = 1000) -> Any:
    return lambda kept: base + sum(costs[name] * number for name, number in kept.items())
