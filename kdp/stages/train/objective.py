"""The training objective: the ground truth, and distillation from teachers if configured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from kdp.config import DistillConfig, ModelConfig
from kdp.data.content import fingerprint
from kdp.distillation.objective import Distiller, compares_features, compares_outputs
from kdp.distillation.target_cache import CachedTargetDataset, first_target
from kdp.distillation.teacher import CachedTeacher, TargetSource, TeacherEnsemble, normalized_shares
from kdp.errors import KdpError, join_names
from kdp.files import sha256
from kdp.log import log
from kdp.models import PLANS, build
from kdp.models.loading import load_network
from kdp.stages.train.request import DistillRequest
from kdp.tasks import family_of
from kdp.tasks.base import TrainingTask
from kdp.training.job import Batch, Objective
from kdp.training.running import Loss, RunningMetrics
from kdp.types import Arch


@dataclass(frozen=True)
class TrainingObjective:
    """A loss and the samples it is computed on.

    Attributes:
        objective: (model, batch, step) -> loss and its named parts.
        data: number of samples -> the samples.
        extra_modules: modules that are trained beside the student.
        running_metrics: of the outputs that the loss is computed on.
        parents: the files of the teachers.
    """

    objective: Objective
    data: Callable[[int], Dataset[Batch]]
    extra_modules: nn.Module = field(default_factory=nn.Module)
    running_metrics: RunningMetrics = field(default_factory=RunningMetrics)
    parents: list[Path] = field(default_factory=list)


def build_objective(
    task: TrainingTask, student: nn.Module, request: DistillRequest | None, steps: int
) -> TrainingObjective:
    """The loss against the ground truth, or the distillation loss that includes it.

    Args:
        task: of the student.
        student: the network before any wrapper.
        request: the teachers and the losses; None for the ground truth alone.
        steps: of the whole run.

    Raises:
        KdpError: a teacher cannot be read or does not fit, or a loss or tap is wrong.
    """
    running = RunningMetrics(task.sample_metrics)
    if request is None:
        objective = ground_truth(task, running.observe(task.loss))
        return TrainingObjective(objective, task.training_data, running_metrics=running)
    taps, data = student_taps(task, student, request.distill), task.training_data
    probe = _first_batch(task)
    source: TargetSource
    if request.distill.target_cache:
        key = target_key(task, request, taps)
        target = first_target(request.distill.target_cache, key)
        source = CachedTeacher(len(request.teacher.paths), request.teacher.shares)
        data = partial(_cached_samples, task, request.distill.target_cache, key)
        probe |= {name: value[None] for name, value in target.items()}
    else:
        source = load_teachers(task, request, list(taps.values()))
    # Loading teachers draws random numbers, reading cached targets does not: seeded again, so that
    # both start from the same alignments.
    torch.manual_seed(request.seed)
    distiller = Distiller(
        request.distill,
        student,
        source,
        taps=taps,
        inputs=task.inputs,
        task_loss=running.observe(task.loss),
        steps=steps,
        seed=request.seed,
        probe=probe,
        confidence_map=task.confidence_map,
        task_reduction=request.distill.task_reduction or task.task_reduction,
    )

    def distil(network: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return distiller(network, task.prepare(batch), step)

    return TrainingObjective(distil, data, distiller.alignments, running, request.teacher.files)


def _first_batch(task: TrainingTask) -> Batch:
    """The first training sample without augmentation, as a batch of one."""
    sample = task.training_data(1)[0]
    return task.prepare({key: value[None] for key, value in sample.items()}, augment=False)


def _cached_samples(
    task: TrainingTask, folder: Path, key: dict[str, Any], count: int
) -> Dataset[Batch]:
    return CachedTargetDataset(task.training_data(count), folder, key)


def ground_truth(task: TrainingTask, loss: Loss) -> Objective:
    """The task's loss alone."""

    def objective(network: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        batch = task.prepare(batch)
        return loss(network(task.inputs(batch)), batch), {}

    return objective


def load_teachers(
    task: TrainingTask, request: DistillRequest, taps: Sequence[str]
) -> TeacherEnsemble:
    """The teachers; the outputs of several are averaged.

    Args:
        task: of the student.
        request: names the teachers.
        taps: the teachers' modules whose features are compared.

    Raises:
        KdpError: a file is not a network, or has other classes where outputs are compared; or a
            file or a plan belongs to another family than the student.
    """
    teacher = request.teacher
    models = [
        _load_teacher(path, task, request)
        if path in teacher.files
        else _untrained(path, request.student)
        for path in teacher.paths
    ]
    return TeacherEnsemble(models, list(taps), task.inputs, teacher.shares)


def _load_teacher(path: Path, task: TrainingTask, request: DistillRequest) -> nn.Module:
    model, arch, _ = load_network(path)
    family: Any = family_of(arch).task
    if isinstance(family, type) and not isinstance(task, family):
        raise KdpError(f"{path} holds {arch.name}, a network of another family than the student")
    _check_inputs(path, arch, getattr(task, "arch", arch))
    teacher_classes: Any = getattr(model, "classes", None)
    classes: Any = getattr(task, "classes", None)
    comparable = teacher_classes and classes and compares_outputs(request.distill)
    if comparable and teacher_classes != classes:
        raise KdpError(
            f"{path} has the classes {join_names(teacher_classes)}, "
            f"the student has {join_names(classes)}"
        )
    return model


def _check_inputs(path: Path, teacher: Arch, student: Arch) -> None:
    """Make sure that a teacher reads the batches that are made for its student.

    Raises:
        KdpError: its input is made in another way.
    """
    for key in family_of(teacher).input_args:
        theirs, own = teacher.args.get(key), student.args.get(key)
        if theirs != own:
            raise KdpError(
                f"{path} reads other inputs than the student: it has {key}={theirs or 'default'}, "
                f"the student {key}={own or 'default'}"
            )


def _untrained(plan: Path, student: ModelConfig | None) -> nn.Module:
    """A network as a plan describes it, to try a configuration before there is a teacher."""
    if student is None or student.name not in PLANS:
        known = ", ".join(PLANS)
        raise KdpError(f"{plan}: plans exist for a `model` of {known}; give weights instead")
    arch = PLANS[student.name](plan.name, student.args)
    log.info(f"{plan} is a plan without weights: this is a dry run, the student learns nothing")
    return build(arch.name, **arch.args)


def student_taps(task: TrainingTask, student: nn.Module, distill: DistillConfig) -> dict[str, str]:
    """The student's taps -> the teachers'; empty where no loss compares features."""
    if not compares_features(distill):
        return {}
    taps: Any = distill.taps or task.taps(student)
    return dict(taps) if isinstance(taps, dict) else {name: name for name in taps}


def target_key(task: TrainingTask, request: DistillRequest, taps: dict[str, str]) -> dict[str, Any]:
    """Everything that the teachers' targets depend on.

    Data sets may change where their settings do not, so that their files count too; the input made
    of the first sample counts because the code that makes it may change.
    """
    first = task.inputs(_first_batch(task))
    teacher = request.teacher
    return {
        "teachers": [sha256(path) for path in teacher.files],
        "shares": normalized_shares(len(teacher.paths), teacher.shares),
        "taps": sorted(set(taps.values())),
        "data": request.data,
        "seed": request.seed,
        "samples": fingerprint(task.training_samples),
        "inputs": hashlib.sha256(first.numpy().tobytes()).hexdigest(),
    }
