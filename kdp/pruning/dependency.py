"""Groups of coupled channels, found by torch-pruning's dependency graph.

DepGraph (Fang et al., CVPR 2023, arXiv 2301.12900) traces a forward pass and tells which tensors
lose entries together with an output channel of a convolution: its normalization, and the input
channels of everything that reads it. Nothing here knows the network.
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
"""Limits of the graph search in seconds and bytes; on some architectures it does not terminate."""
_NORM_BUFFERS = ("running_mean", "running_var")


def channel_groups(
    model: nn.Module,
    example: Tensor,
    argument: str,
    ignored_layers: Sequence[nn.Module] = (),
    per_layer: bool = False,
) -> list[Group]:
    """One group for the output channels of every convolution, in the order of the modules.

    Channels that are added to one another (a residual stream) form one group.

    Args:
        model: on the example's device; its mode and `requires_grad` flags are restored.
        example: an input, (1, ...).
        argument: constructor argument that lists the numbers of channels.
        ignored_layers: layers whose output channels stay, such as the classifier. Whatever is
            added to their outputs stays too.
        per_layer: True if `argument` has one entry per convolution, False for one per group.

    Raises:
        KdpError: a layer reads channels in another order than they are written, or the search
            exceeds `SECONDS` or `MEMORY`.
    """
    names = {module: name for name, module in model.named_modules()}
    convs = [name for module, name in names.items() if isinstance(module, nn.Conv2d)]
    order = {name: number for number, name in enumerate(convs)}
    dependencies = _coupled_layers(model, example, ignored_layers)
    coupled = [_CoupledChannels.of(dependency, names) for dependency in dependencies]
    ignored = {names[module] for module in ignored_layers}
    # Channels that nobody reads are outputs of the network: they have no mask point.
    coupled = [c for c in coupled if c.mask_points and not ignored & set(c.writers)]
    # torch-pruning's order depends on its traversal of the graph; module order is reproducible.
    coupled.sort(key=lambda c: min(order[name] for name in c.writers))
    length = len(convs) if per_layer else len(coupled)
    groups = []
    for number, channels in enumerate(coupled):
        places = sorted(order[name] for name in channels.writers) if per_layer else [number]
        name = min(channels.writers, key=order.__getitem__)
        groups.append(channels.group(name, argument, tuple(places), length))
    return groups


def _coupled_layers(
    model: nn.Module, example: Tensor, ignored_layers: Sequence[nn.Module]
) -> list[Any]:
    """torch-pruning's groups: for each, the dependencies that a channel drags along."""
    training, requires_grad = model.training, [p.requires_grad for p in model.parameters()]
    # DepGraph follows grad_fn from output to input; a frozen parameter would hide its layer.
    model.requires_grad_(True)
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
        for parameter, flag in zip(model.parameters(), requires_grad, strict=True):
            parameter.requires_grad_(flag)


@dataclass
class _CoupledChannels:
    """Channels that are removed together.

    Attributes:
        units: number of channels.
        writers: the convolutions whose outputs they are.
        slices: their entries in parameters and buffers.
        mask_points: the inputs of the layers that read them.
    """

    units: int
    writers: list[str] = field(default_factory=list)
    slices: list[ParamSlice] = field(default_factory=list)
    mask_points: list[MaskPoint] = field(default_factory=list)

    @classmethod
    def of(cls, dependencies: Any, names: dict[nn.Module, str]) -> _CoupledChannels:
        """Translate one of torch-pruning's groups."""
        channels = cls(len(dependencies[0].idxs))
        for item in dependencies:
            module = item.dep.target.module
            if module not in names:  # an operation without weights, such as an addition
                continue
            name = names[module]
            if item.dep.handler.__name__ == "prune_in_channels":
                channels._add_reader(module, name, _unit_runs(item, channels.units, name))
            else:
                channels._add_writer(module, name)
        return channels

    def group(self, name: str, argument: str, positions: tuple[int, ...], length: int) -> Group:
        """The channels as a prunable group; see `Group` for the arguments."""
        mask_points, slices = tuple(self.mask_points), tuple(self.slices)
        return Group(
            name, "channels", self.units, mask_points, slices, argument, positions, length, 1
        )

    def _add_reader(self, module: nn.Module, name: str, runs: list[tuple[int, int]]) -> None:
        """Add the input entries of a layer that reads the channels."""
        dim = -1 if isinstance(module, nn.Linear) else 1
        for start, width in runs:
            self.slices.append(ParamSlice(f"{name}.weight", 1, width, start=start))
            self.mask_points.append(MaskPoint(name, dim, width, start))

    def _add_writer(self, module: nn.Module, name: str) -> None:
        """Add the output entries of a convolution, or the entries of a normalization."""
        if isinstance(module, nn.Conv2d):
            self.writers.append(name)
        params = [key for key, value in module.named_parameters(recurse=False) if value is not None]
        buffers = [key for key in _NORM_BUFFERS if getattr(module, key, None) is not None]
        self.slices += [
            *(ParamSlice(f"{name}.{key}", 0) for key in params),
            *(ParamSlice(f"{name}.{key}", 0, buffer=True) for key in buffers),
        ]


def _unit_runs(dependency: Any, units: int, name: str) -> list[tuple[int, int]]:
    """Where a layer's input holds the units: a (start, entries per unit) for each time.

    A layer reads a unit several times where a tensor was concatenated with itself or with another
    tensor that it is coupled to by an addition; it reads several consecutive entries of a unit
    behind a flatten.

    Args:
        dependency: pairs `idxs` (entries of the layer's input) with `root_idxs` (channels).
        units: number of channels.
        name: the layer, for the message.

    Raises:
        KdpError: the runs of the other units do not follow from those of the first.
    """
    entries: list[list[int]] = [[] for _ in range(units)]
    for entry, unit in zip(dependency.idxs, dependency.root_idxs, strict=True):
        entries[unit].append(entry)
    # The consecutive stretches of the first unit's entries give the start and width of every run.
    first = sorted(entries[0])
    edges = [i for i, entry in enumerate(first) if not i or entry != first[i - 1] + 1]
    runs = [(first[i], j - i) for i, j in pairwise([*edges, len(first)])]
    # A `ParamSlice` assumes that unit i follows i widths behind unit 0 in every run. Channel
    # shuffle breaks this; masks would then hit other channels than rebuild cuts.
    for unit, actual in enumerate(entries):
        expected = [start + unit * width + i for start, width in runs for i in range(width)]
        if sorted(actual) != sorted(expected):
            raise KdpError(
                f"{name} reads its input channels in another order than they are written; "
                "name the layer that writes them in ignored_layers"
            )
    return runs
