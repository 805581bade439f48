"""`kdp teach`: what the teachers say of the training samples, once for many trainings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import default_collate

from kdp.artifacts import make_record
from kdp.config import Config, TrainConfig
from kdp.devices import pick_device
from kdp.distillation.teacher import Targets
from kdp.distillation.written import file_of, holds, write
from kdp.errors import KdpError
from kdp.files import claim
from kdp.models import build
from kdp.models.loading import load_network
from kdp.progress import progress
from kdp.stages.distil import distilled, ensemble, taps_of, target_key, teacher_of
from kdp.stages.paths import chain_paths, targets_folder
from kdp.tasks import task_for
from kdp.tasks.base import Task

FILE_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Taught:
    """What `teach` wrote: the folder, samples, and bytes on disk."""

    folder: Path
    samples: int
    size: int


def teach(config: Config) -> Taught:
    """Write down the teachers' outputs and features for every sample of the training.

    Files that are there already and fit are kept, so that a second run goes on where the first
    one was stopped. A training reads them with `distill.teacher.written=true`.

    Raises:
        KdpError: a section or a file is missing, or the disk is full.
    """
    distilled(config)
    task, student, settings = _setting(config)
    teacher, taps = teacher_of(config), taps_of(task, student, config)
    folder, key = targets_folder(config), target_key(config, taps)
    record = make_record("teach", config.plain(), teacher.paths, started=time.time())
    source = ensemble(task, teacher, list(taps.values()))
    device, samples = pick_device(config.device), settings.steps * settings.batch_size
    data = task.training_data(samples)

    def targets(first: int) -> Targets:
        numbers = range(first, min(first + settings.batch_size, samples))
        batch = default_collate([data[number] for number in numbers])
        return source({name: tensor.to(device) for name, tensor in batch.items()})

    with claim(folder):
        per_file = _per_file(targets(0), settings.batch_size)
        with progress("teaching", samples) as advance:
            for number, first in enumerate(range(0, samples, per_file)):
                last, path = min(first + per_file, samples), file_of(folder, number)
                if not holds(path, key):
                    parts = _flat(targets, range(first, last, settings.batch_size))
                    write(path, key, record, parts)
                advance(last - first)
    return Taught(folder, samples, sum(f.stat().st_size for f in folder.glob("*.pth")))


def _flat(targets: Callable[[int], Targets], firsts: range) -> dict[str, torch.Tensor]:
    """The targets of several batches as one."""
    found = [targets(first).flat() for first in firsts]
    return {name: torch.cat([part[name].cpu() for part in found]) for name in found[0]}


def _setting(config: Config) -> tuple[Task, nn.Module, TrainConfig]:
    """Task, student and the training that is prepared: `train`, or `finetune` without it."""
    settings = config.train or config.finetune
    if settings is None:
        raise KdpError("kdp teach needs the section `train` or `finetune`")
    if config.train is None or config.model is None:
        student, arch, _ = load_network(chain_paths(config).pruned)
        return task_for(arch, config), student, settings
    student = build(config.model.name, **config.model.args)
    return task_for(config.model.arch, config), student, settings


def _per_file(targets: Targets, batch_size: int) -> int:
    """Samples of a file of `FILE_BYTES`, whole batches."""
    size = sum(tensor.nbytes for tensor in targets.flat().values())
    return max(1, FILE_BYTES // size) * batch_size
