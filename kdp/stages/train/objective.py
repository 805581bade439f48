"""What a stage that trains learns from: the ground truth, and teachers where there are any."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from kdp.config import Config, ModelConfig, TeacherConfig
from kdp.distillation.objective import Distiller, compares_features, compares_outputs
from kdp.distillation.target_cache import CachedTargetDataset, first_target
from kdp.distillation.teacher import CachedTeacher, TargetSource, TeacherEnsemble, normalized_shares
from kdp.errors import KdpError, join_names
from kdp.files import sha256
from kdp.log import log
from kdp.models import PLANS, build
from kdp.models.loading import load_network
from kdp.tasks.base import TrainingTask
from kdp.training.job import Batch, Objective


@dataclass(frozen=True)
class TrainingObjective:
    """What to minimise and on what.

    Attributes:
        objective: (model, batch, step) -> loss and parts.
        data: number of samples -> the samples.
        extra_modules: modules that are trained beside the student.
        parents: the files of the teachers.
    """

    objective: Objective
    data: Callable[[int], Dataset[Batch]]
    extra_modules: nn.Module = field(default_factory=nn.Module)
    parents: list[Path] = field(default_factory=list)


def build_objective(
    task: TrainingTask, student: nn.Module, config: Config, steps: int
) -> TrainingObjective:
    """The ground truth alone, or with what `distill` adds.

    Args:
        task: of the student.
        student: the network before any wrapper.
        config: `distill`, `teacher` and `seed` are read.
        steps: of the whole run.

    Raises:
        KdpError: there is no teacher to distil from, or a loss or tap is wrong.
    """
    if config.distill is None:
        return TrainingObjective(ground_truth(task), task.training_data)
    teacher = teacher_of(config)
    taps, data = taps_of(task, student, config), task.training_data
    probe = _first_batch(task)
    source: TargetSource
    if config.distill.target_cache:
        key = target_key(task, config, taps)
        written = partial(_with_targets, task, config.distill.target_cache, key)
        target = first_target(config.distill.target_cache, key)
        source, data = CachedTeacher(len(teacher.paths), teacher.shares), written
        probe |= {name: value[None] for name, value in target.items()}
    else:
        source = ensemble(task, config, list(taps.values()))
    torch.manual_seed(config.seed)  # alignments start the same, whatever was loaded before
    distiller = Distiller(
        config.distill,
        student,
        source,
        taps=taps,
        inputs=task.inputs,
        task_loss=task.loss,
        steps=steps,
        seed=config.seed,
        probe=probe,
        confidence_map=task.confidence_map,
    )

    def objective(network: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return distiller(network, task.prepare(batch), step)

    return TrainingObjective(objective, data, distiller.alignments, teacher.files)


def _first_batch(task: TrainingTask) -> Batch:
    """The first training sample, as it is."""
    sample = task.training_data(1)[0]
    return task.prepare({key: value[None] for key, value in sample.items()}, augment=False)


def _with_targets(
    task: TrainingTask, folder: Path, key: dict[str, Any], count: int
) -> Dataset[Batch]:
    return CachedTargetDataset(task.training_data(count), folder, key)


def ground_truth(task: TrainingTask) -> Objective:
    """The objective that knows no teacher."""

    def objective(network: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        batch = task.prepare(batch)
        return task.loss(network(task.inputs(batch)), batch), {}

    return objective


def ensemble(task: TrainingTask, config: Config, names: list[str]) -> TeacherEnsemble:
    """The teachers, loaded; of several, one with the task's own kind of output each.

    Args:
        task: of the student.
        config: whose teachers; a plan is completed by its `model`.
        names: the modules whose features are wanted.

    Raises:
        KdpError: a file is no network, or one of other classes where outputs are compared; or a
            plan is none of the student's family.
    """
    teacher, distill = teacher_of(config), config.distill
    compared = distill is not None and compares_outputs(distill)
    models = [
        _loaded(path, task, compared) if path in teacher.files else _untrained(path, config.model)
        for path in teacher.paths
    ]
    return TeacherEnsemble(models, names, task.inputs, teacher.shares)


def _loaded(path: Path, task: TrainingTask, compared: bool) -> nn.Module:
    model = load_network(path)[0]
    theirs, own = (getattr(one, "classes", None) for one in (model, task))
    if compared and theirs and own and theirs != own:
        raise KdpError(
            f"{path} knows the classes {join_names(theirs)}, the student's: {join_names(own)}"
        )
    return model


def _untrained(plan: Path, student: ModelConfig | None) -> nn.Module:
    if student is None or student.name not in PLANS:
        known = ", ".join(PLANS)
        raise KdpError(f"{plan}: there are plans for a `model` of {known}; give weights instead")
    arch = PLANS[student.name](plan.name, student.args)
    log.info(f"{plan} has no weights: there is nothing to learn from this teacher, it is a dry run")
    return build(arch.name, **arch.args)


def teacher_of(config: Config) -> TeacherConfig:
    """Who is learnt from.

    Raises:
        KdpError: nobody is named.
    """
    if config.distill and config.distill.teacher:
        return config.distill.teacher
    if config.teacher is None:
        raise KdpError("the section `distill` needs `teacher`, the file to learn from")
    return TeacherConfig(weights=config.teacher)


def taps_of(task: TrainingTask, student: nn.Module, config: Config) -> dict[str, str]:
    """Modules of the student -> those of the teachers; none where no loss compares features."""
    distill = config.distill
    assert distill is not None
    if not compares_features(distill):
        return {}
    taps: Any = distill.taps or task.taps(student)
    return dict(taps) if isinstance(taps, dict) else {name: name for name in taps}


def target_key(task: TrainingTask, config: Config, taps: dict[str, str]) -> dict[str, Any]:
    """Everything that what teachers say of the training samples depends on."""
    plain, teacher = config.plain(), teacher_of(config)
    data = {key: value for key, value in plain["data"].items() if key != "workers"}
    first = task.inputs(_first_batch(task))
    return {
        "teachers": [sha256(path) for path in teacher.files],
        "shares": normalized_shares(len(teacher.paths), teacher.shares),
        "taps": sorted(set(taps.values())),
        "data": data,
        "seed": config.seed,
        "pictures": hashlib.sha256(first.numpy().tobytes()).hexdigest(),
    }
