"""The task of each network."""

from __future__ import annotations

from kdp.config import Config
from kdp.errors import KdpError
from kdp.tasks.base import Task, TaskFactory
from kdp.tasks.classification import Classification
from kdp.tasks.detection import Detection
from kdp.tasks.scenes import AcousticScenes
from kdp.tasks.super_resolution import SuperResolution
from kdp.types import Arch

TASKS: dict[str, TaskFactory] = {
    "audio_transformer": AcousticScenes,
    "catanet": SuperResolution,
    "cp_mobile": AcousticScenes,
    "mask_classifier": Classification,
    "rep_mobile": AcousticScenes,
    "yolo11": Detection,
}


def task_for(arch: Arch, config: Config) -> Task:
    """The task of a network.

    Raises:
        KdpError: no task is known for it.
    """
    if arch.name not in TASKS:
        raise KdpError(f"no task is known for the network {arch.name!r}")
    return TASKS[arch.name](arch, config)
