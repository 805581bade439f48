"""Device, mixed precision and processes of a run, through accelerate."""

from __future__ import annotations

from accelerate import Accelerator

from kdp.config import TrainSettings
from kdp.devices import pick_device
from kdp.errors import KdpError


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
