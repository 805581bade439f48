"""Groups of coupled channels, found by torch-pruning's dependency graph.

What one output channel of a convolution drags along (its normalisation, the channels of whatever
reads it) is read off a traced forward pass; nothing here knows the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.pruning.groups import Group, MaskPoint, ParamSlice
from kdp.pruning.resource_limit import limit_resources

SECONDS, MEMORY = 120.0, 8e9
"""Of the search for what belongs together, bytes: for some networks it never ends."""
_NORM_BUFFERS = ("running_mean", "running_var")


def channel_groups(
    model: nn.Module,
    example: Tensor,
    argument: str,
    ignored_layers: Sequence[nn.Module] = (),
    per_layer: bool = False,
) -> list[Group]:
    """A group for the output channels of every convolution, in the order of the modules.

    Channels that are added to one another are one group.

    Args:
        model: on the device of the example; its mode and gradients are as before afterwards.
        example: an input.
        argument: the argument of the network that holds the numbers of channels, one per group.
        ignored_layers: modules whose output channels stay, such as the classifier, and what is
            added to them.
        per_layer: that argument has an entry for every convolution instead.

    Raises:
        KdpError: channels of a layer are read in an order that is not theirs, or the search for
            them takes more than `SECONDS` or `MEMORY`.
    """
    names = {module: name for name, module in model.named_modules()}
    layers = [name for module, name in names.items() if isinstance(module, nn.Conv2d)]
    order = {name: number for number, name in enumerate(layers)}
    found = [
        _CoupledChannels.of(coupled, names) for coupled in _coupled(model, example, ignored_layers)
    ]
    found = [
        one for one in found if not {names[module] for module in ignored_layers} & set(one.writers)
    ]
    found = [one for one in found if one.gates]
    found.sort(key=lambda one: min(order[name] for name in one.writers))
    groups = []
    for number, one in enumerate(found):
        places = sorted(order[name] for name in one.writers) if per_layer else [number]
        length = len(layers) if per_layer else len(found)
        name = min(one.writers, key=order.__getitem__)
        gates, slices = tuple(one.gates), tuple(one.slices)
        positions = tuple(places)
        groups.append(
            Group(
                name, "channels", one.units, gates, slices, argument, positions, length, min_units=1
            )
        )
    return groups


def _coupled(model: nn.Module, example: Tensor, ignored_layers: Sequence[nn.Module]) -> list[Any]:
    """What torch-pruning finds to belong together."""
    training, learning = model.training, [p.requires_grad for p in model.parameters()]
    model.requires_grad_(True)  # it follows gradients
    try:
        with limit_resources("the search for coupled channels", SECONDS, MEMORY):
            graph = tp.DependencyGraph().build_dependency(model.eval(), example)
            return list(
                graph.get_all_groups(
                    ignored_layers=list(ignored_layers), root_module_types=[nn.Conv2d]
                )
            )
    finally:
        model.train(training)
        for parameter, learns in zip(model.parameters(), learning, strict=True):
            parameter.requires_grad_(learns)


@dataclass
class _CoupledChannels:
    """The layers that write some channels, and where their entries and readers are."""

    units: int
    writers: list[str] = field(default_factory=list)
    slices: list[ParamSlice] = field(default_factory=list)
    gates: list[MaskPoint] = field(default_factory=list)

    @classmethod
    def of(cls, coupled: Any, names: dict[nn.Module, str]) -> _CoupledChannels:
        found = cls(len(coupled[0].idxs))
        for item in coupled:
            module = item.dep.target.module
            if module not in names:  # an operation without weights
                continue
            if item.dep.handler.__name__ == "prune_in_channels":
                found._read(module, names[module], _runs(item, found.units, names[module]))
            else:
                found._write(module, names[module])
        return found

    def _read(self, module: nn.Module, name: str, runs: list[tuple[int, int]]) -> None:
        for start, width in runs:
            dim = -1 if isinstance(module, nn.Linear) else 1
            self.slices.append(ParamSlice(f"{name}.weight", 1, width, start=start))
            self.gates.append(MaskPoint(name, dim, width, start))

    def _write(self, module: nn.Module, name: str) -> None:
        """The entries of a layer that belong to its output channels."""
        if isinstance(module, nn.Conv2d):
            self.writers.append(name)
        learnt = [key for key, value in module.named_parameters(recurse=False) if value is not None]
        buffers = [key for key in _NORM_BUFFERS if getattr(module, key, None) is not None]
        self.slices += [
            *(ParamSlice(f"{name}.{key}", 0) for key in learnt),
            *(ParamSlice(f"{name}.{key}", 0, buffer=True) for key in buffers),
        ]


def _runs(item: Any, units: int, name: str) -> list[tuple[int, int]]:
    """Where a layer reads the units: (start, consecutive entries of a unit), as often as it does.

    What was concatenated with itself, or with what it was added to, is read several times.
    """
    entries: list[list[int]] = [[] for _ in range(units)]
    for entry, unit in zip(item.idxs, item.root_idxs, strict=True):
        entries[unit].append(entry)
    first = sorted(entries[0])
    edges = [i for i, entry in enumerate(first) if not i or entry != first[i - 1] + 1]
    runs = [(first[i], j - i) for i, j in pairwise([*edges, len(first)])]
    for unit, found in enumerate(entries):
        expected = [start + unit * width + i for start, width in runs for i in range(width)]
        if sorted(found) != sorted(expected):
            raise KdpError(f"the channels that {name} reads are not in the order of their layer")
    return runs
