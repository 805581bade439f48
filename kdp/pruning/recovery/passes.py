"""What the passes of the dense and of the pruned network show of a layer, as rows of numbers.

Shape suffixes: P positions of a layer's output, I its inputs, O its outputs.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdp.pruning.recovery.moments import Moments
from kdp.pruning.recovery.readers import (
    Affine,
    Reader,
    affine,
    input_rows,
    output_positions,
    output_rows,
)
from kdp.pruning.recovery.streams import Enough, Sighting, StreamWatch

SMALLEST_FACTOR = 1e-3
"""A normalization that scales a channel by less than this share of the largest one hides it."""


@dataclass(frozen=True)
class Part:
    """Calibration samples with one purpose.

    Attributes:
        batches: inputs, (B, ...) each, on the device of the networks.
        positions: how many positions of a layer's output are used, over all batches.
        seed: chooses them.
    """

    batches: Sequence[Tensor]
    positions: int
    seed: int

    def positions_of(self, name: str, batch: int, available: int) -> Tensor:
        """The positions that a batch contributes: (P,), the same in both networks.

        Args:
            name: of the layer.
            batch: number of the batch.
            available: number of positions of the layer's output.
        """
        count = -(-self.positions // len(self.batches))
        if available <= count:
            return torch.arange(available)
        generator = torch.Generator().manual_seed(
            zlib.crc32(f"{self.seed} {name} {batch}".encode())
        )
        return torch.randperm(available, generator=generator)[:count].sort().values


@dataclass
class DenseRows:
    """What the dense network's pass shows of a layer, batch by batch.

    Attributes:
        outputs: (P, O) each.
        streams: what is added to the outputs, (P, O) each; empty where nothing is added.
        terms: number of additions.
        norm: name of the normalization behind the layer.
    """

    outputs: list[Tensor] = field(default_factory=list)
    streams: list[Tensor] = field(default_factory=list)
    terms: int = 0
    norm: str | None = None


def dense_rows(dense: nn.Module, names: Sequence[str], part: Part) -> Mapping[str, DenseRows]:
    """Outputs of layers in the dense network, from one pass.

    Args:
        dense: the network before pruning.
        names: of the layers, in order of execution.
        part: samples.
    """
    norms = {module: name for name, module in dense.named_modules()}
    rows = {name: DenseRows() for name in names}
    for number, batch in enumerate(part.batches):
        for name, sighting in _watch(dense, names, batch).items():
            layer, row = affine(dense, name), rows[name]
            positions = _positions(layer, sighting, name, number, part)
            row.outputs.append(output_rows(layer, sighting.output, positions))
            row.norm = None if sighting.norm is None else norms[sighting.norm]
            row.terms = len(sighting.terms)
            if sighting.terms:
                row.streams.append(output_rows(layer, sighting.stream(), positions))
    return rows


def moments(
    pruned: nn.Module, names: Sequence[str], reader: Reader, part: Part, dense: DenseRows
) -> Moments:
    """Sums of what a layer reads in the pruned network, and of what it should return.

    Where the layer's output is added to a residual stream, it should also return what the stream
    has lost before the addition.

    Args:
        pruned: the pruned network, in which all layers before this one are refitted.
        names: of all layers that are watched, in order of execution.
        reader: the layer.
        part: samples.
        dense: what the dense network's pass showed of the layer.
    """
    layer = affine(pruned, reader.name)
    sums = Moments.zeros(len(reader.inputs), len(reader.outputs))
    for number, batch in enumerate(part.batches):
        sighting = _watch(pruned, names, batch, reader.name, dense.terms)[reader.name]
        positions = _positions(layer, sighting, reader.name, number, part)
        targets = dense.outputs[number]
        if dense.terms:
            lost = dense.streams[number] - output_rows(layer, sighting.stream(), positions)
            targets = targets + lost / _factor(pruned, dense.norm, lost)
        x = input_rows(layer, sighting.inputs, positions)
        sums.add(x[:, reader.inputs.to(x.device)], targets[:, reader.outputs.to(x.device)])
    return sums


def _watch(
    model: nn.Module, names: Sequence[str], batch: Tensor, wanted: str = "", terms: int = 0
) -> dict[str, Sighting]:
    """Run a network, until everything about one layer is known if one is wanted."""

    def stop(name: str, sighting: Sighting) -> None:
        if name == wanted and len(sighting.terms) >= terms:
            raise Enough

    with StreamWatch(model, names, stop) as watch, suppress(Enough):
        model(batch)
    return watch.sightings


def _positions(layer: Affine, sighting: Sighting, name: str, batch: int, part: Part) -> Tensor:
    available = output_positions(layer, sighting.output)
    return part.positions_of(name, batch, available).to(sighting.output.device)


def _factor(model: nn.Module, norm: str | None, like: Tensor) -> Tensor:
    """By what a normalization multiplies the channels; infinite where it hides them."""
    if norm is None:
        return like.new_ones(())
    module = model.get_submodule(norm)
    assert isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
    assert module.running_var is not None
    factor = (module.running_var + module.eps).rsqrt()
    if module.affine:
        factor = factor * module.weight
    hidden = factor.abs() <= SMALLEST_FACTOR * factor.abs().max()
    return factor.masked_fill(hidden, float("inf"))
