"""One family of networks, as the stages use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from kdp.config import Config
from kdp.tasks.base import Task
from kdp.tasks.export_spec import ExportSpec
from kdp.tasks.predictor import InferOptions, Predictor, TablePredictor
from kdp.types import Arch

MakePredictor = Callable[[nn.Module, Arch, Config, InferOptions], Predictor | TablePredictor]


def _unchanged(arch: Arch, config: Config) -> Arch:
    return arch


@dataclass(frozen=True)
class Family:
    """What a family brings, each part for the stages that need it.

    Attributes:
        task: (architecture, configuration) -> data, loss, metrics and prunable groups.
        export_spec: (architecture, configuration) -> how `kdp export` writes the network.
        predictor: (network in eval mode, architecture, configuration, options) -> what `kdp infer`
            does with an image or a file; None for a family that has no use for `infer`.
        new_arch: (architecture, configuration) -> that of a new network, with what the
            configuration says of its input.
        input_args: arguments of a network that say how its input is made. Networks that read the
            same batches, such as a teacher and its student, must agree in them.
    """

    task: Callable[[Arch, Config], Task]
    export_spec: Callable[[Arch, Config], ExportSpec]
    predictor: MakePredictor | None = None
    new_arch: Callable[[Arch, Config], Arch] = _unchanged
    input_args: tuple[str, ...] = ()
