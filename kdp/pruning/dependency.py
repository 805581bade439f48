"""Groups of coupled channels, found by torch-pruning's dependency graph.

What one output channel of a convolution drags along (its normalisation, the channels of whatever
reads it) is read off a traced forward pass; nothing here knows the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.pruning.groups import Group, Slice

_NORM_BUFFERS = ("running_mean", "running_var")


def channel_groups(
    model: nn.Module, example: Tensor, argument: str, keep: Sequence[nn.Module] = ()
) -> list[Group]:
    """A group for the output channels of every convolution, in the order of the modules.

    Args:
        model: on the device of the example; its mode and gradients are as before afterwards.
        example: an input.
        argument: the argument of the network that holds the numbers of channels, one per group.
        keep: modules whose outputs stay, the classifier say.

    Raises:
        KdpError: channels are read by several layers, which one gate cannot mask.
    """
    names = {module: name for name, module in model.named_modules()}
    training, learning = model.training, [p.requires_grad for p in model.parameters()]
    graph = tp.DependencyGraph().build_dependency(model.eval(), example)
    model.train(training)
    for parameter, learns in zip(model.parameters(), learning, strict=True):
        parameter.requires_grad_(learns)
    found = list(graph.get_all_groups(ignored_layers=list(keep), root_module_types=[nn.Conv2d]))
    order = {name: number for number, name in enumerate(names.values())}
    found.sort(key=lambda group: order[names[group[0].dep.target.module]])
    return [_group(group, names, argument, i, len(found)) for i, group in enumerate(found)]


def _group(
    coupled: Any, names: dict[nn.Module, str], argument: str, index: int, length: int
) -> Group:
    units = len(coupled[0].idxs)
    slices: list[Slice] = []
    readers: list[str] = []
    for item in coupled:
        module = item.dep.target.module
        if module not in names:  # an operation without weights
            continue
        if item.dep.handler.__name__ == "prune_in_channels":
            readers.append(names[module])
            slices.append(Slice(f"{names[module]}.weight", 1, len(item.idxs) // units))
        else:
            slices += _outputs(module, names[module])
    if len(readers) != 1:
        raise KdpError(f"the channels of {names[coupled[0].dep.target.module]} have {readers=}")
    dim = -1 if slices[-1].width > 1 or _is_linear(names, readers[0]) else 1
    name = names[coupled[0].dep.target.module]
    width = slices[-1].width
    return Group(
        name, "channels", units, readers[0], dim, width, tuple(slices), argument, index, length
    )


def _is_linear(names: dict[nn.Module, str], wanted: str) -> bool:
    return any(isinstance(m, nn.Linear) for m, name in names.items() if name == wanted)


def _outputs(module: nn.Module, name: str) -> list[Slice]:
    """The entries of a layer that belong to its output channels."""
    weights = [key for key, value in module.named_parameters(recurse=False) if value is not None]
    buffers = [key for key in _NORM_BUFFERS if getattr(module, key, None) is not None]
    return [
        *(Slice(f"{name}.{key}", 0) for key in weights),
        *(Slice(f"{name}.{key}", 0, buffer=True) for key in buffers),
    ]
