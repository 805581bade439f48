"""Device, mixed precision and processes of a run, through accelerate."""

from __future__ import annotations

import time

from accelerate import Accelerator

from kdp.config import TrainSettings
from kdp.devices import pick_device
from kdp.errors import KdpError

DRAIN_SECONDS = 0.2
"""Time for the threads of the process group to finish, once in a run."""


def end_together(accelerator: Accelerator) -> None:
    """Leave the process group, in all processes at once.

    Freeing the group joins its threads without releasing Python's lock, and hangs if one of them
    still needs the lock to free what the last exchange used: they get a moment for it first.
    """
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        time.sleep(DRAIN_SECONDS)
    accelerator.end_training()


def make_accelerator(settings: TrainSettings, device: str) -> Accelerator:
    """The accelerator of a run.

    Args:
        settings: mixed precision and batch size are read.
        device: "auto", or a device type ("cpu", "cuda", ...).

    Raises:
        KdpError: there is no such device, it does not support the precision, or the batch does
            not divide by the number of processes.
    """
    if ":" in device:
        raise KdpError(
            f"device={device}: training takes a device type such as 'cuda'; select GPUs with "
            "CUDA_VISIBLE_DEVICES"
        )
    if pick_device(device).type == "cpu" and settings.mixed_precision == "fp16":
        raise KdpError("train.mixed_precision=fp16 needs a GPU; use bf16 on a CPU")
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=settings.mixed_precision)
    if settings.batch_size % accelerator.num_processes:
        raise KdpError(
            f"train.batch_size={settings.batch_size} is not divisible by the number of processes "
            f"({accelerator.num_processes})"
        )
    return accelerator
