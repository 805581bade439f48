"""A physically smaller network out of a masked one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.models import build
from kdp.pruning.groups import Group, Masks, unit_indices
from kdp.pruning.masks import kept_units, masks_applied
from kdp.types import Arch

TOLERANCE = 1e-4


def smaller_arch(arch: Arch, groups: Sequence[Group], kept: Mapping[str, int]) -> Arch:
    """The architecture with each group's number of units replaced by what it keeps."""
    args = dict(arch.args)
    for argument in {group.argument: None for group in groups}:
        members = [group for group in groups if group.argument == argument]
        if not members[0].positions:
            args[argument] = kept[members[0].name]
            continue
        values = {place: kept[group.name] for group in members for place in group.positions}
        args[argument] = [values.get(i, 0) for i in range(members[0].length)]
    return Arch(arch.name, args)


def rebuild(
    model: nn.Module, arch: Arch, groups: Sequence[Group], masks: Masks
) -> tuple[nn.Module, Arch]:
    """Cut the removed units out of the weights and load the rest into a smaller network.

    Returns:
        The network, in eval mode, and its architecture.

    Raises:
        KdpError: the cut weights do not fit the smaller network.
    """
    small_arch = smaller_arch(arch, groups, kept_units(masks))
    small = build(small_arch.name, **small_arch.args).eval()
    params = smaller_params(model.state_dict(), groups, masks)
    wanted = small.state_dict().keys()
    try:
        # What only an emptied group needed is not part of the smaller network.
        small.load_state_dict({name: params[name] for name in wanted})
    except (KeyError, RuntimeError) as error:
        raise KdpError(f"the masks do not fit {arch.name}: {error}") from error
    return small, small_arch


def smaller_params(
    params: Mapping[str, Tensor], groups: Sequence[Group], masks: Masks
) -> dict[str, Tensor]:
    """Parameters without the entries of the removed units."""
    gone: dict[tuple[str, int], list[Tensor]] = {}
    for group in groups:
        for piece in group.slices:
            own = unit_indices(~masks[group.name], piece.width, piece.start)
            gone.setdefault((piece.param, piece.dim), []).append(own)
    result = dict(params)
    for (name, dim), places in gone.items():
        keep = torch.ones(params[name].shape[dim], dtype=torch.bool)
        keep[torch.cat(places)] = False
        index = keep.nonzero().flatten().to(params[name].device)
        result[name] = result[name].index_select(dim, index)
    return result


def full_params(
    small: Mapping[str, Tensor],
    full: Mapping[str, Tensor],
    groups: Sequence[Group],
    masks: Masks,
) -> dict[str, Tensor]:
    """The other way round: parameters of the smaller network in their places in the full one.

    Args:
        small: see `smaller_params`; on any device, the result is on the CPU.
        full: what is kept where the smaller network has nothing; entries of removed units in
            learnt parameters are zero in it.
        groups, masks: what the smaller network was cut by.
    """
    index = {name: torch.arange(tensor.numel()).view(tensor.shape) for name, tensor in full.items()}
    places = smaller_params(index, groups, masks)
    result = {name: tensor.detach().cpu().clone() for name, tensor in full.items()}
    for name, tensor in small.items():
        result[name].view(-1)[places[name].flatten()] = tensor.detach().cpu().flatten()
    return result


@torch.no_grad()
def largest_difference(
    model: nn.Module, small: nn.Module, groups: Sequence[Group], masks: Masks, probe: Tensor
) -> float:
    """Largest difference between the masked and the rebuilt network's outputs on a probe.

    Measured in float64, where a tie or a rounding cannot reorder tokens, and relative to the
    largest output.
    """
    model, small = (_double(network) for network in (model, small))
    with masks_applied(model, groups, masks):
        expected = model(probe.double())
    difference = (small(probe.double()) - expected).abs().max() / expected.abs().max()
    return float(difference)


def _double(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model).cpu().double().eval()
