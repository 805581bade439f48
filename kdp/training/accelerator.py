"""Devices, mixed precision and trackers of a run, by accelerate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from kdp.config import TrainConfig
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.progress import say
from kdp.training.processes import is_main


def make_accelerator(settings: TrainConfig, device: str, folder: Path) -> Accelerator:
    """The accelerator of a run.

    Args:
        settings: mixed precision, trackers and batch size are read.
        device: "auto", or the type of a device ("cpu", "cuda", ...).
        folder: where trackers write.

    Raises:
        KdpError: no such device, or a batch that the processes cannot share.
    """
    if device != "auto":
        pick_device(device)
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=settings.mixed_precision,
        log_with=_installed(settings.trackers) or None,
        project_dir=folder,
    )
    if settings.batch_size % accelerator.num_processes:
        raise KdpError(
            f"batch_size {settings.batch_size} does not divide by "
            f"{accelerator.num_processes} processes"
        )
    return accelerator


def _installed(trackers: Sequence[str]) -> list[str]:
    """A tracker that is not there is no reason not to train: curves are written anyway."""
    there = [str(tracker) for tracker in get_available_trackers()]
    for tracker in trackers:
        if tracker not in there and is_main():
            say(f"not tracked by {tracker}, which is missing: pip install 'kdp[{tracker}]'")
    return [tracker for tracker in trackers if tracker in there]
