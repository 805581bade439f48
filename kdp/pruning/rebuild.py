"""Building the physically smaller network that equals a masked one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.measure.difference import relative_difference
from kdp.models import build
from kdp.pruning.groups import Group, Masks, unit_indices
from kdp.pruning.masks import kept_units
from kdp.types import Arch

TOLERANCE = 1e-11
"""Largest accepted `largest_difference` between the full network and the cut one.

Both compute in float64 and sum the same products, one with zeros between them: on every family they
differ by less than 1e-15, which other processors and deeper networks may raise by some orders.
"""
FUSED_TOLERANCE = 1e-4
"""The same where normalisations and branches were folded: the folded weights are rounded to float32
(6e-8), and each following layer adds to the error."""


def smaller_arch(arch: Arch, groups: Sequence[Group], kept: Mapping[str, int]) -> Arch:
    """The architecture whose groups have as many units as they keep.

    Args:
        arch: of the full network.
        groups: all its groups.
        kept: units that each group keeps, by name.
    """
    args = dict(arch.args)
    for argument in {group.argument: None for group in groups}:  # a dict keeps the order
        members = [group for group in groups if group.argument == argument]
        if not members[0].positions:
            args[argument] = kept[members[0].name]
            continue
        widths = {place: kept[group.name] for group in members for place in group.positions}
        # A place without a group belongs to one that an earlier pruning has emptied.
        args[argument] = [widths.get(i, 0) for i in range(members[0].length)]
    return Arch(arch.name, args)


def rebuild(
    model: nn.Module, arch: Arch, groups: Sequence[Group], masks: Masks
) -> tuple[nn.Module, Arch]:
    """Cut the removed units out of the weights and load the rest into a smaller network.

    Args:
        model: the full network, masked or not; it is not changed.
        arch: its architecture.
        groups: all its groups.
        masks: which units stay.

    Returns:
        The smaller network in eval mode, and its architecture.

    Raises:
        KdpError: the cut weights do not fit the smaller network.
    """
    small_arch = smaller_arch(arch, groups, kept_units(masks))
    small = build(small_arch.name, **small_arch.args).eval()
    params = smaller_params(model.state_dict(), groups, masks)
    try:
        # By the smaller network's names: layers that only an emptied group used are not in it.
        small.load_state_dict({name: params[name] for name in small.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise KdpError(f"the masks do not fit {arch.name}: {error}") from error
    return small, small_arch


def smaller_params(
    params: Mapping[str, Tensor], groups: Sequence[Group], masks: Masks
) -> dict[str, Tensor]:
    """Parameters and buffers without the entries of the removed units.

    Args:
        params: state dict of the full network.
        groups: all its groups.
        masks: which units stay.
    """
    removed: dict[tuple[str, int], list[Tensor]] = {}
    for group in groups:
        for piece in group.slices:
            indices = unit_indices(~masks[group.name], piece.width, piece.start)
            removed.setdefault((piece.param, piece.dim), []).append(indices)
    result = dict(params)
    # Several groups may share a dimension (concatenated inputs): collect all their indices before
    # cutting, because the first cut would shift the entries of the others.
    for (name, dim), indices_of_groups in removed.items():
        keep = torch.ones(params[name].shape[dim], dtype=torch.bool)
        keep[torch.cat(indices_of_groups)] = False
        index = keep.nonzero().flatten().to(params[name].device)
        result[name] = result[name].index_select(dim, index)
    return result


def full_params(
    small: Mapping[str, Tensor],
    full: Mapping[str, Tensor],
    groups: Sequence[Group],
    masks: Masks,
) -> dict[str, Tensor]:
    """The inverse of `smaller_params`: put a smaller network's parameters back into the full one.

    Args:
        small: state dict of the smaller network, on any device.
        full: state dict of the full network, which fills the entries that `small` lacks; its
            learned parameters are zero at removed units.
        groups, masks: those by which the smaller network was cut.

    Returns:
        A state dict of the full network, on the CPU.
    """
    # Cutting the flat index of every entry tells where each entry of the smaller network came from.
    index = {name: torch.arange(tensor.numel()).view(tensor.shape) for name, tensor in full.items()}
    origin = smaller_params(index, groups, masks)
    result = {name: tensor.detach().cpu().clone() for name, tensor in full.items()}
    for name, tensor in small.items():
        result[name].view(-1)[origin[name].flatten()] = tensor.detach().cpu().flatten()
    return result


@torch.no_grad()
def largest_difference(model: nn.Module, small: nn.Module, probe: Tensor) -> float:
    """Largest difference between the outputs of the full and the rebuilt network.

    The full network runs as it is, without masks: a removed unit that is not zero shows.

    Args:
        model: the full network, whose removed units are zero.
        small: the rebuilt one.
        probe: (B, ...), an input.

    Returns:
        The difference relative to the largest output of the full network.
    """
    # In float64, where rounding does not flip the ties of a token sort: the two networks sum in
    # different orders, and one swapped token would look like a fault.
    model, small = (_double(network) for network in (model, small))
    return relative_difference(small(probe.double()), model(probe.double()))


def _double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).cpu().double().eval()
