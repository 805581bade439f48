"""`kdp train`: a network from scratch or given weights, on its ground truth and from teachers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdp.artifacts import Artifact, make_record, save
from kdp.config import Config, ModelConfig, TrainConfig
from kdp.errors import KdpError
from kdp.files import check_writable, sha256
from kdp.models import PRETRAINED, build
from kdp.models.loading import load_network
from kdp.stages.experiments.store import record as keep
from kdp.stages.paths import chain_paths, do_nothing
from kdp.stages.train.dynamic import (
    Dynamic,
    add_dynamic,
    check_budget,
    masks_artifact,
    prune_while_training,
)
from kdp.stages.train.limits import check_limits
from kdp.stages.train.objective import TrainingObjective, build_objective
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.training.job import TrainingJob, TrainingResult
from kdp.training.loop import fit
from kdp.training.processes import is_main_process, main_process_lock
from kdp.types import Arch, Provenance


def train(
    config: Config, resume: bool = False, on_ready: Callable[[], None] = do_nothing
) -> dict[str, Path]:
    """Train `model` as `train` says, from teachers too where there is `distill`.

    Writes `{dir}/{name}.pth` (the best validation) and `{dir}/{name}_last.pth`, and in
    `{runs}/{name}_train/` the checkpoint and the curves. With `dynamic` the network is pruned
    meanwhile: removed units are zero in both files, and the masks are written beside them.

    Args:
        config: of the chain.
        resume: go on from the checkpoint.
        on_ready: called once the inputs are valid.

    Raises:
        KdpError: a section is missing, the network exceeds `limits`, or whatever the loop raises.
    """
    if config.model is None or config.train is None:
        raise KdpError("kdp train needs the sections `model` and `train`")
    started, paths = time.time(), chain_paths(config)
    torch.manual_seed(config.seed)
    model, arch = starting_point(config.model)
    task = task_for(arch, config)
    check_limits(config, task, arch)
    learnt = build_objective(task, model, config, config.train.steps)
    dynamic = add_dynamic(config, task, model, arch) if config.dynamic else None
    parents = [*_weights(config.model), *learnt.parents]
    job = make_job(task, model, config, config.train, "train", learnt, parents)
    if dynamic:
        prune_while_training(job, dynamic)
    with main_process_lock(paths.trained):
        on_ready()
        result = fit(job, resume)
        if is_main_process():
            written = _save(result, arch, dynamic, config, started, parents)
            if config.experiments:
                network = load_network(paths.trained)[0].to(result.device)
                keep(config, "train", paths.trained, task, network, result.best_metrics)
            return written
    return {}


def _weights(section: ModelConfig) -> list[Path]:
    """The file that a training starts from, if any."""
    if section.weights is None:
        return []
    folder = section.weights.is_dir()
    return [section.weights / "model.safetensors" if folder else section.weights]


def starting_point(section: ModelConfig) -> tuple[nn.Module, Arch]:
    """The network before its first step: new, or with the weights of a file.

    Raises:
        KdpError: the file, or the folder of another program, does not hold what `model` says.
    """
    if section.weights is None:
        return build(section.name, **section.args), section.arch
    if section.weights.is_dir():
        return _pretrained(section, section.weights)
    model, arch, _ = load_network(section.weights, section.arch)
    return model, arch


def _pretrained(section: ModelConfig, folder: Path) -> tuple[nn.Module, Arch]:
    if section.name not in PRETRAINED:
        raise KdpError(f"{folder} is a folder; {section.name!r} starts from a file")
    model, args = PRETRAINED[section.name](folder, section.args)
    return model, Arch(section.name, args)


def _save(
    result: TrainingResult,
    arch: Arch,
    dynamic: Dynamic | None,
    config: Config,
    started: float,
    parents: Sequence[Path],
) -> dict[str, Path]:
    paths = chain_paths(config)
    last = paths.trained.with_stem(f"{paths.trained.stem}_last")
    written, artifacts = {"best": paths.trained, "last": last}, {}
    for key, params, metrics in (
        ("best", result.best, result.best_metrics),
        ("last", result.last, result.last_metrics),
    ):
        record = stage_record("train", config, result, metrics, started, parents)
        if dynamic:
            params, masks = dynamic.plain(params)
            check_budget(config, dynamic, masks)
        artifacts[key] = Artifact(params, arch, record)
    if dynamic:
        written["masks"] = paths.masks
        artifacts["masks"] = masks_artifact(dynamic, masks, config, record)
    for key, artifact in artifacts.items():
        save(written[key], artifact)
    return written


def make_job(
    task: Task,
    model: nn.Module,
    config: Config,
    settings: TrainConfig,
    stage: str,
    learnt: TrainingObjective,
    parents: Sequence[Path] = (),
) -> TrainingJob:
    """The job of a stage that trains.

    Raises:
        KdpError: there is no evaluation set.

    Args:
        task: gives the data and the validation.
        model: what learns.
        config: the whole configuration.
        settings: its section for this stage.
        stage: names the folder of the run.
        learnt: what is minimised, and on what.
        parents: files the stage starts from; a run resumes only with the same ones.
    """
    check_evaluation(config)
    _ = task.evaluation_sets  # what is missing is missed before a step is done
    if config.experiments:
        check_writable(config.experiments.folder)
    return TrainingJob(
        model=model,
        data=learnt.data,
        objective=learnt.objective,
        validate=task.evaluate,
        primary_metric=task.primary_metric,
        settings=settings,
        folder=config.output.runs / f"{config.output.name}_{stage}",
        seed=config.seed,
        device=config.device,
        workers=config.data.workers,
        extra_modules=learnt.extra,
        signature=signature(config, settings, parents),
    )


def check_evaluation(config: Config) -> None:
    """Make sure that there is something to pick the best weights by.

    Raises:
        KdpError: there is nothing.
    """
    if not config.evaluation:
        raise KdpError("training needs an `evaluation` set, to pick the best weights by")


def signature(
    config: Config, settings: TrainConfig, parents: Sequence[Path] = ()
) -> dict[str, Any]:
    """What a resumed run must share with the one it goes on with.

    Not the number of steps, which may grow, nor what says how often to look.
    """
    plain = config.plain()
    keep = ("seed", "model", "teacher", "data", "distill", "evaluation", "dynamic")
    budget = [plain["mac_constraint"], plain["prune"]] if config.dynamic else None
    free = {"steps", "validate_every", "checkpoint_every", "log_every", "trackers"}
    return {
        **{key: plain[key] for key in keep},
        **settings.model_dump(mode="json", exclude=free),
        "budget": budget,
        "parents": [sha256(path) for path in parents],
    }


def stage_record(
    stage: str,
    config: Config,
    result: TrainingResult,
    metrics: Mapping[str, Any],
    started: float,
    parents: Sequence[Path] = (),
) -> Provenance:
    """Provenance of what a training stage writes."""
    return make_record(
        stage, config.plain(), parents, metrics=metrics, started=started, device=result.device
    )
