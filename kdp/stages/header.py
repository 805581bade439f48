"""The lines that a long run begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from kdp.devices import pick_device
from kdp.log import log
from kdp.measure.complexity import count_parameters
from kdp.measure.latency import device_name
from kdp.stages.costs import Costs
from kdp.stages.tables import with_unit


def log_header(
    title: str,
    device: str,
    samples: Mapping[str, int],
    model: nn.Module,
    targets: Sequence[Path],
    note: str = "",
    costs: Costs | None = None,
) -> None:
    """Log what runs where, on how much data, and where it writes.

    Args:
        title: stage and name of the run.
        device: as the configuration names it.
        samples: number of samples by set.
        model: the network that is trained or pruned.
        targets: files and folders that will be written.
        note: what there is to say about the number of parameters.
        costs: of the network as it will be deployed.

    Raises:
        KdpError: there is no such device.
    """
    chosen = pick_device(device)
    lines = {
        "device": f"{chosen} ({device_name(chosen)})",
        "data": ", ".join(f"{name} {count:,}" for name, count in samples.items()),
        "parameters": f"{count_parameters(model):,}{note}",
        **({"deployed": _costs_line(costs)} if costs else {}),
        "writes": ", ".join(map(str, targets)),
    }
    log.info(title)
    for name, text in lines.items():
        log.info(f"  {name:10}  {text}")


def _costs_line(costs: Costs) -> str:
    sizes = [f"{with_unit(size, 'B')} at {precision}" for precision, size in costs.bytes.items()]
    return ", ".join([f"{costs.parameters:,} parameters", f"{with_unit(costs.macs)} MACs", *sizes])
