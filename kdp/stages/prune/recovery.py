"""Refitting the layers of a pruned network: the last step of `kdp prune`, or `kdp recover`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from kdp.config import RecoverConfig
from kdp.errors import KdpError
from kdp.progress import progress
from kdp.pruning.groups import Group, Masks
from kdp.pruning.recovery.readers import readers
from kdp.pruning.recovery.recover import Calibration, Recovered, recover
from kdp.tasks.base import PruningTask
from kdp.training.shutdown import stop_at_once

BATCH = 16
"""Samples in a forward pass; how many there are does not decide the result."""


@dataclass(frozen=True)
class Recovery:
    """What recovery reached.

    Attributes:
        result: by layer, and of the network's outputs.
        samples: number of calibration samples, held-out ones included.
        seconds: that it took.
    """

    result: Recovered
    samples: int
    seconds: float

    def plain(self) -> dict[str, Any]:
        """For the record of the file."""
        shares = {fit.name: fit.share for fit in self.result.layers}
        return {
            "samples": self.samples,
            "seconds": self.seconds,
            "kept": self.result.kept,
            "distance_before": self.result.before,
            "distance_after": self.result.after,
            "shares": shares,
        }


def recover_network(
    settings: RecoverConfig,
    task: PruningTask,
    dense: nn.Module,
    pruned: nn.Module,
    groups: Sequence[Group],
    masks: Masks,
    seed: int,
    stopped: str,
) -> Recovery:
    """Refit the layers of a pruned network, in place.

    Args:
        settings: the section `recover`.
        task: calibration samples, and the distance of outputs.
        dense, pruned: the network before and after pruning, on one device.
        groups: all groups.
        masks: which units stay.
        seed: chooses positions of the layers' outputs.
        stopped: what an interruption says.

    Raises:
        KdpError: there are too few samples, or they lead to outputs that are not finite.
        Interrupted: on SIGINT, SIGTERM or SIGHUP.
    """
    started = time.monotonic()
    device = next(pruned.parameters()).device
    inputs = task.inputs(task.calibration_data(settings.samples)).to(device)
    count = len(inputs)
    held_out = max(1, math.floor(count * settings.holdout))
    if count - held_out < 1:
        raise KdpError(f"recover: {count} calibration sample is too few; set recover.samples")
    fit, rest = inputs[: count - held_out], inputs[count - held_out :]
    samples = Calibration(fit.split(BATCH), rest.split(BATCH), task.output_distance, seed)
    layers, _ = readers(pruned, groups, masks, inputs[:1])
    with stop_at_once(stopped), progress("recovering layers", len(layers)) as advance:
        result = recover(
            dense.eval(), pruned.eval(), groups, masks, samples, settings.ridge, advance
        )
    return Recovery(result, count, time.monotonic() - started)
