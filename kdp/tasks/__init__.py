"""The families of networks: one package each, and the table of which network belongs to which.

A family's package has

    section.py   its data kinds and configuration sections; imported to read a configuration,
                 so it imports neither torch nor anything that does
    family.py    FAMILY, the `kdp.tasks.family.Family` that the stages use; imported on first use
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kdp.errors import KdpError

if TYPE_CHECKING:
    from kdp.config import Config
    from kdp.tasks.base import Task
    from kdp.tasks.family import Family
    from kdp.types import Arch

# The one place that names the families. Modules, not classes: whoever only reads a configuration
# must not wait for torch.
FAMILIES: dict[str, str] = {
    "audio_transformer": "kdp.tasks.scenes",
    "catanet": "kdp.tasks.super_resolution",
    "cp_mobile": "kdp.tasks.scenes",
    "mask_classifier": "kdp.tasks.classification",
    "rep_mobile": "kdp.tasks.scenes",
    "yolo11": "kdp.tasks.detection",
}
"""Package of the family of each network of `kdp.models.MODELS`."""


def family_of(arch: Arch) -> Family:
    """The family of a network.

    Raises:
        KdpError: the table does not have this network.
    """
    if arch.name not in FAMILIES:
        raise KdpError(f"no task is known for the network {arch.name!r}")
    family: Family = import_module(f"{FAMILIES[arch.name]}.family").FAMILY
    return family


def task_for(arch: Arch, config: Config) -> Task:
    """The task of a network, for one configuration.

    Raises:
        KdpError: the table does not have this network.
    """
    return family_of(arch).task(arch, config)


def new_arch(arch: Arch, config: Config) -> Arch:
    """The architecture of a new network, with what the configuration says of its input.

    That of a network that is not in the table is returned as it is.

    Raises:
        KdpError: the architecture and the configuration contradict one another.
    """
    return family_of(arch).new_arch(arch, config) if arch.name in FAMILIES else arch
