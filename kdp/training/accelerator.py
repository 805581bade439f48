"""Device and mixed precision of a run, by accelerate."""

from __future__ import annotations

from accelerate import Accelerator

from kdp.config import TrainConfig
from kdp.devices import pick_device
from kdp.errors import KdpError


def make_accelerator(settings: TrainConfig, device: str) -> Accelerator:
    """The accelerator of a run.

    Args:
        settings: mixed precision and batch size are read.
        device: "auto", or the type of a device ("cpu", "cuda", ...).

    Raises:
        KdpError: no such device, a precision it does not have, or a batch that the processes
            cannot share.
    """
    if ":" in device:
        raise KdpError(
            f"trainings take a kind of device, not {device!r}: choose among GPUs by "
            "CUDA_VISIBLE_DEVICES"
        )
    if pick_device(device).type == "cpu" and settings.mixed_precision == "fp16":
        raise KdpError("mixed_precision fp16 needs a GPU; a CPU has bf16")
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=settings.mixed_precision)
    if settings.batch_size % accelerator.num_processes:
        raise KdpError(
            f"batch_size {settings.batch_size} does not divide by "
            f"{accelerator.num_processes} processes"
        )
    return accelerator
