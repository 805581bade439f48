"""The network of a file as it will be deployed: without removed units, and fused."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from kdp.artifacts import Artifact
from kdp.models import fuse
from kdp.pruning.groups import Group, Masks, weights_per_unit
from kdp.pruning.rebuild import rebuild
from kdp.removed import REMOVED
from kdp.tasks.base import PruningTask
from kdp.types import Arch

DEPLOYED = "as `kdp rebuild` writes it: without removed units, fused where it can be"
"""How parameters, MACs and bytes of tables are counted, where they are not those of a file."""


def deployed(
    model: nn.Module, arch: Arch, artifact: Artifact, task: PruningTask
) -> tuple[nn.Module, Arch]:
    """What `kdp rebuild` would make of a network; one that has no removed units is fused alone.

    All tables count the parameters of this network, so that a file has one number of them before
    and after `rebuild`.

    Args:
        model: the network, in eval mode; it is not changed.
        arch: its architecture.
        artifact: its file.
        task: knows its groups.
    """
    if REMOVED in artifact.extra:
        groups = task.groups(model)
        model, arch = rebuild(model, arch, groups, _nonzero_units(model, groups))
    return fuse(model, arch)


def _nonzero_units(model: nn.Module, groups: Sequence[Group]) -> Masks:
    params = dict(model.named_parameters())
    masks: Masks = {}
    for group in groups:
        masks[group.name] = torch.zeros(group.units, dtype=torch.bool)
        for piece in group.weight_slices:
            entries = weights_per_unit(params[piece.param].detach(), piece, group.units)
            masks[group.name] |= entries.any(1).cpu()
    return masks
