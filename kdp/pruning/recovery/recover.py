"""Refitting the layers of a pruned network, one after another, to the outputs of the dense one.

Nothing is trained: each layer is a least-squares problem with a closed solution (GRAIL, arXiv
2602.23795; OSSCAR, arXiv 2403.12983).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.progress import Advance, no_bar
from kdp.pruning.groups import Group, Masks
from kdp.pruning.recovery.layers import LayerFit, refit_layer
from kdp.pruning.recovery.passes import Part, dense_rows, moments
from kdp.pruning.recovery.readers import readers

POSITIONS = 16384
"""Positions of a layer's output that its refit is based on: several times as many as inputs."""


@dataclass(frozen=True)
class Calibration:
    """Samples for recovery, on the device of the networks.

    Attributes:
        fit: batches that layers are refitted on, (B, ...) each.
        held_out: batches that decide how much of a refit is kept.
        distance: of the network's output from a reference, (B,) each.
        seed: chooses positions of the layers' outputs.
    """

    fit: Sequence[Tensor]
    held_out: Sequence[Tensor]
    distance: Callable[[Tensor, Tensor], Tensor]
    seed: int = 0


@dataclass(frozen=True)
class Recovered:
    """The result of `recover`.

    Attributes:
        layers: in order of execution.
        skipped: layers that read removed units and cannot be refitted.
        before, after: distance of the network's outputs from the dense ones on held-out samples.
    """

    layers: list[LayerFit]
    skipped: list[str]
    before: float
    after: float

    @property
    def kept(self) -> bool:
        """Whether the refitted weights are better; if not, the network is as it was."""
        return self.after < self.before


@torch.no_grad()
def recover(
    dense: nn.Module,
    pruned: nn.Module,
    groups: Sequence[Group],
    masks: Masks,
    samples: Calibration,
    ridge: float,
    advance: Advance = no_bar,
) -> Recovered:
    """Refit the layers that read removed units, in place.

    Removed units stay zero. On held-out samples, no layer's error and no output's distance gets
    larger: such weights are not kept.

    Args:
        dense: the network before pruning, in eval mode.
        pruned: the same network with the removed units zeroed, in eval mode.
        groups: all its groups.
        masks: which units stay.
        samples: calibration samples.
        ridge: strength with which weights are drawn towards the present ones.
        advance: called with the number of layers that have been refitted.

    Raises:
        KdpError: the calibration samples lead to outputs that are not finite.
    """
    found, skipped = readers(pruned, groups, masks, samples.fit[0][:1])
    names = [reader.name for reader in found]
    before = _distance(pruned, dense, samples)
    backup = {name: value.clone() for name, value in pruned.state_dict().items()}
    parts = [Part(batches, POSITIONS, samples.seed) for batches in (samples.fit, samples.held_out)]
    targets = [dense_rows(dense, names, part) for part in parts]
    fits = []
    for reader in found:
        rows = [target[reader.name] for target in targets]
        fit, held_out = (
            moments(pruned, names, reader, part, row) for part, row in zip(parts, rows, strict=True)
        )
        fits.append(refit_layer(pruned, reader, fit, held_out, ridge, rows[0].norm))
        advance(1)
    result = Recovered(fits, skipped, before, _distance(pruned, dense, samples))
    if not result.kept:
        pruned.load_state_dict(backup)
    return result


def _distance(model: nn.Module, dense: nn.Module, samples: Calibration) -> float:
    """Mean distance of a network's outputs from the dense ones on held-out samples."""
    distances = [samples.distance(model(batch), dense(batch)) for batch in samples.held_out]
    value = float(torch.cat(distances).double().mean())
    if value != value or value == float("inf"):
        raise KdpError("recovery: a calibration sample leads to outputs that are not finite")
    return value
