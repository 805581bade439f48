"""`kdp cache-targets`: precompute teacher outputs and features for many trainings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import default_collate

from kdp.artifacts import make_record, read_parents
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
from kdp.models.loading import load_network
from kdp.progress import progress
from kdp.stages.paths import do_nothing
from kdp.stages.replacing import check_targets
from kdp.stages.train.objective import load_teachers, student_taps, target_key
from kdp.stages.train.request import CacheTargetsRequest
from kdp.stages.train.train import starting_point
from kdp.tasks import task_for
from kdp.tasks.base import TrainingTask
from kdp.training.shutdown import graceful_shutdown

FILE_BYTES = 64 * 1024**2
"""Size of one file of targets: small enough to be rewritten, large enough to be read at once."""
CONTINUE = "run the same command to continue"


@dataclass(frozen=True)
class CachedTargets:
    """Where the targets are, for how many samples, and their size on disk in bytes."""

    folder: Path
    samples: int
    size: int


def cache_targets(
    config: Config, overwrite: bool = False, on_ready: Callable[[], None] = do_nothing
) -> CachedTargets:
    """Compute the teachers' outputs and features for every training sample and write them to disk.

    Existing files that fit are kept, so a second run continues where the first was stopped. A
    training with the same data and seed reads the targets with `distill.target_cache=FOLDER`. Use
    trained teachers: the output of an untrained one may depend on the rest of the batch.

    Args:
        config: of the training that will read the targets.
        overwrite: replace files that kdp would not replace otherwise.
        on_ready: called once the inputs are valid.

    Raises:
        KdpError: a section or a file is missing, or there is not enough disk space.
        Interrupted: on SIGINT, SIGTERM or SIGHUP; a second run continues.
    """
    started = time.time()
    request = CacheTargetsRequest.from_config(config)
    distill, folder = request.distill, request.folder
    task, student = _task_and_student(request)
    counted = task.sample_counts["training"] if request.uses_epochs else None
    samples, batch_size = request.amount(counted)
    taps = student_taps(task, student, distill.distill)
    key = target_key(task, distill, taps)
    source = load_teachers(task, distill, list(taps.values()))
    teachers = read_parents(distill.teacher.files)
    device = pick_device(request.device)
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
        _drop_stale_index(folder, key)
        _write_files(folder, key, samples, batch_size, targets)
        record = make_record("cache-targets", config.plain(), teachers, started=started)
        write_index(folder, key, record, samples, size)
    return CachedTargets(folder, samples, sum(f.stat().st_size for f in folder.glob("*.pth")))


def _write_files(
    folder: Path, key: dict[str, int], samples: int, batch: int, targets: Callable[[range], Targets]
) -> None:
    """Write the missing files.

    Batches start at the first sample of a file, so a file does not depend on which others exist.
    """
    size = key["files"]
    with graceful_shutdown() as shutdown, progress("caching targets", samples) as advance:
        for number, first in enumerate(range(0, samples, size)):
            last, path = min(first + size, samples), target_path(folder, number)
            if not is_cached(path, key, last - first):
                starts = range(first, last, batch)
                batches = []
                for start in starts:
                    if shutdown.overdue:
                        raise Interrupted(f"stopped after {first} samples; {CONTINUE}")
                    batches.append(targets(range(start, min(start + batch, last))).flat())
                joined = {n: torch.cat([b[n].cpu() for b in batches]) for n in batches[0]}
                write_targets(path, key, joined)
            advance(last - first)
            if shutdown.stop_requested and last < samples:
                raise Interrupted(f"stopped after {last} samples; {CONTINUE}")


def _drop_stale_index(folder: Path, key: dict[str, int]) -> None:
    """Remove the index of other targets: their files are about to be replaced."""
    try:
        if index_path(folder).exists():
            read_index(folder, key)
    except KdpError:
        index_path(folder).unlink()


def _task_and_student(request: CacheTargetsRequest) -> tuple[TrainingTask, nn.Module]:
    """The task, and the student that defines the taps: `model`, or the pruned network."""
    if request.model is None:
        student, arch, _ = load_network(request.pruned)
        return task_for(arch, request.config), student
    student, arch = starting_point(request.model, request.config)
    return task_for(arch, request.config), student


def _samples_per_file(first: Targets, samples: int, folder: Path) -> int:
    """Samples that fit into `FILE_BYTES`; logs the total size.

    Raises:
        KdpError: the disk has too little space for all of them.
    """
    bytes_each = sum(tensor.nbytes for tensor in first.flat().values())
    needed, free = samples * bytes_each, free_bytes(folder)
    log.info(f"{samples} samples of {bytes_each / 1e6:.3g} MB each: {needed / 1e9:.3g} GB")
    if needed > free:
        raise KdpError(
            f"{folder}: the targets need {needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free"
        )
    return max(1, FILE_BYTES // bytes_each)
