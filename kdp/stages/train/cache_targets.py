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
from kdp.config import Config
from kdp.devices import pick_device
from kdp.distillation.target_cache import (
    index_path,
    is_cached,
    read_index,
    target_path,
    write_index,
    write_targets,
)
from kdp.distillation.teacher import Targets
from kdp.errors import Interrupted, KdpError
from kdp.files import file_lock, free_bytes
from kdp.log import log
from kdp.models import build
from kdp.models.loading import load_network
from kdp.progress import progress
from kdp.stages.paths import chain_paths, do_nothing, targets_folder
from kdp.stages.replacing import check_targets
from kdp.stages.train.objective import ensemble, taps_of, target_key, teacher_of
from kdp.tasks import task_for
from kdp.tasks.base import TrainingTask
from kdp.training.shutdown import graceful_shutdown

FILE_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Taught:
    """What `teach` wrote: the folder, samples, and bytes on disk."""

    folder: Path
    samples: int
    size: int


def teach(
    config: Config, overwrite: bool = False, on_ready: Callable[[], None] = do_nothing
) -> Taught:
    """Write down the teachers' outputs and features for every sample of the training.

    Files that are there already and fit are kept, so that a second run goes on where the first
    one was stopped. A training with the same data and seed reads them by
    `distill.target_cache=FOLDER`. A network that was never trained depends on its batch; teach
    with a trained one.

    Args:
        config: of the training that will read them.
        overwrite: replace whatever is there.
        on_ready: called once the inputs are valid.

    Raises:
        KdpError: a section or a file is missing, or the disk is full or too small.
        Interrupted: on SIGINT or SIGTERM; a second run goes on.
    """
    started = time.time()
    task, student = _setting(config)
    teacher, taps = teacher_of(config), taps_of(task, student, config)
    folder, key = targets_folder(config), target_key(task, config, taps)
    samples, batch_size = _samples(config)
    source = ensemble(task, config, list(taps.values()))
    device = pick_device(config.device)
    data = task.training_data(samples)

    def targets(numbers: range) -> Targets:
        batch = default_collate([data[number] for number in numbers])
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        return source(task.prepare(batch, augment=False))

    with file_lock(folder):
        size = _samples_per_file(targets(range(1)), samples, folder)
        key = {**key, "files": size}
        check_targets([*sorted(folder.glob("*.pth")), index_path(folder)], overwrite)
        on_ready()
        _forget(folder, key)
        _write_files(folder, key, samples, batch_size, targets)
        record = make_record("teach", config.plain(), teacher.files, started=started)
        write_index(folder, key, record, samples, size)
    return Taught(folder, samples, sum(f.stat().st_size for f in folder.glob("*.pth")))


def _write_files(
    folder: Path, key: dict[str, int], samples: int, batch: int, targets: Callable[[range], Targets]
) -> None:
    """Write what is not there; a file's batches start at its first sample."""
    size = key["files"]
    with graceful_shutdown() as shutdown, progress("teaching", samples) as advance:
        for number, first in enumerate(range(0, samples, size)):
            last, path = min(first + size, samples), target_path(folder, number)
            if not is_cached(path, key, last - first):
                starts = range(first, last, batch)
                found = [targets(range(s, min(s + batch, last))).flat() for s in starts]
                write_targets(
                    path, key, {n: torch.cat([f[n].cpu() for f in found]) for n in found[0]}
                )
            advance(last - first)
            if shutdown.stop_requested and last < samples:
                raise Interrupted(f"stopped after {last} samples; the same command goes on")


def _forget(folder: Path, key: dict[str, int]) -> None:
    """Nothing is read from files that are about to be replaced."""
    try:
        if index_path(folder).exists():
            read_index(folder, key)
    except KdpError:
        index_path(folder).unlink()


def _setting(config: Config) -> tuple[TrainingTask, nn.Module]:
    """The task, and the student whose taps are wanted: `model`, or the pruned network."""
    if config.distill is None:
        raise KdpError("kdp teach needs the section `distill`")
    if config.train is None or config.model is None:
        student, arch, _ = load_network(chain_paths(config).pruned)
        return task_for(arch, config), student
    student = build(config.model.name, **config.model.args)
    return task_for(config.model.arch, config), student


def _samples(config: Config) -> tuple[int, int]:
    """Samples of the longer of `train` and `finetune`, and its batch size."""
    sections = [section for section in (config.train, config.finetune) if section]
    if not sections:
        raise KdpError("kdp teach needs the section `train` or `finetune`")
    return max((section.steps * section.batch_size, section.batch_size) for section in sections)


def _samples_per_file(one: Targets, samples: int, folder: Path) -> int:
    """As many as `FILE_BYTES` hold; says what all will take, and refuses what does not fit."""
    each = sum(tensor.nbytes for tensor in one.flat().values())
    free = free_bytes(folder)
    log.info(f"{samples} samples of {each / 1e6:.3g} MB each: {samples * each / 1e9:.3g} GB")
    if samples * each > free:
        raise KdpError(f"{folder} has {free / 1e9:.3g} GB left on its disk, too little")
    return max(1, FILE_BYTES // each)
