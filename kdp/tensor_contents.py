"""Types of what files with tensors hold: artifacts and checkpoints. See `kdp.contents`."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from kdp.contents import ArchContent, Content, Count, OptionalArch, Plain, Record, Settings


def _boolean(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.bool or tensor.ndim != 1:
        raise ValueError("it must be a row of booleans")
    return tensor


def _numbers(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise ValueError("it must be real numbers")
    return tensor


def _table(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.ndim != 2 or not tensor.numel():
        raise ValueError("it must be a table of real numbers")
    return tensor


def _samples(tensor: Tensor) -> Tensor:
    if not tensor.ndim or tensor.is_complex():
        raise ValueError("it must have an entry of real numbers for each sample")
    return tensor


def _sums(tensor: Tensor) -> Tensor:
    if tensor.shape != (2,):
        raise ValueError("it must be a sum and a number of samples")
    return tensor


Mask = Annotated[Tensor, AfterValidator(_boolean)]
Numbers = Annotated[Tensor, AfterValidator(_numbers)]
Table = Annotated[Tensor, AfterValidator(_table)]
Samples = Annotated[Tensor, AfterValidator(_samples)]
Sums = Annotated[Tensor, AfterValidator(_sums)]
Params = dict[str, Tensor]


class OptimizerContent(Content):
    """The state dict of a torch optimizer."""

    state: dict[int, dict[str, Tensor | float | bool | None]]
    param_groups: list[dict[str, Plain]]


class BestContent(Content):
    """The best validation of a training so far."""

    value: float
    step: Count
    params: Params
    metrics: dict[str, dict[str, float]]


class TrainingContent(Content):
    """The state of a training, see `kdp.training.checkpoint`."""

    step: Count
    model: Params
    extra_modules: Params
    average: Params
    optimizer: OptimizerContent
    best: BestContent
    signature: Settings
    running_metrics: dict[str, Sums] = {}
    validation_due: bool = False
    targets: dict[str, str | None] = {}
    command: str = ""


class ArtifactContent(Content):
    """A file of `kdp.artifacts.save`; which of the optional keys it has depends on the stage."""

    params: Params
    arch: OptionalArch
    record: Record
    arch_full: ArchContent | None = None
    masks: dict[str, Mask] | None = None
    scores: dict[str, Numbers] | None = None
    targets: dict[str, Tensor] | None = None
    budget: Settings | None = None
    key: Settings | None = None
    samples: Count | None = None
    size: Annotated[int, Field(ge=1)] | None = None
    masks_digest: str | None = None
    network_digest: str | None = None
