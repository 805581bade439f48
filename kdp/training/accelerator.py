"""Devices, mixed precision and trackers of a run, by accelerate."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from kdp.config import TrainConfig
from kdp.devices import pick_device
from kdp.errors import KdpError


def make_accelerator(settings: TrainConfig, device: str, folder: Path) -> Accelerator:
    """The accelerator of a run.

    Args:
        settings: mixed precision, trackers and batch size are read.
        device: "auto", or the type of a device ("cpu", "cuda", ...).
        folder: where trackers write.

    Raises:
        KdpError: no such device, a tracker that is not installed, or a batch that the processes
            cannot share.
    """
    for tracker in settings.trackers:
        if tracker not in get_available_trackers():
            raise KdpError(f"the tracker {tracker!r} is missing: pip install 'kdp[{tracker}]'")
    if device != "auto":
        pick_device(device)
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=settings.mixed_precision,
        log_with=list(settings.trackers) or None,
        project_dir=folder,
    )
    if settings.batch_size % accelerator.num_processes:
        raise KdpError(
            f"batch_size {settings.batch_size} does not divide by "
            f"{accelerator.num_processes} processes"
        )
    return accelerator
