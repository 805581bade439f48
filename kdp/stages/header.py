"""The lines that a long run begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from kdp.devices import pick_device
from kdp.log import log
from kdp.measure.complexity import count_parameters
from kdp.measure.latency import device_name


def log_header(
    title: str,
    device: str,
    samples: Mapping[str, int],
    model: nn.Module,
    targets: Sequence[Path],
    note: str = "",
) -> None:
    """Log what runs where, on how much data, and where it writes.

    Args:
        title: stage and name of the run.
        device: as the configuration names it.
        samples: number of samples by set.
        model: the network that is trained or pruned.
        targets: files and folders that will be written.
        note: what there is to say about the number of parameters.

    Raises:
        KdpError: there is no such device.
    """
    chosen = pick_device(device)
    lines = {
        "device": f"{chosen} ({device_name(chosen)})",
        "data": ", ".join(f"{name} {count:,}" for name, count in samples.items()),
        "parameters": f"{count_parameters(model):,}{note}",
        "writes": ", ".join(map(str, targets)),
    }
    log.info(title)
    for name, text in lines.items():
        log.info(f"  {name:10}  {text}")
