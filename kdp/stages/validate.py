"""`kdp validate`: check that a configuration runs, and estimate its time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import nn

from kdp.config import Config
from kdp.data.content import check_disjoint
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.files import check_writable, free_bytes
from kdp.measure.complexity import count_parameters
from kdp.models.loading import load_network
from kdp.progress import duration
from kdp.pruning.importance import make_scorer
from kdp.pruning.resource_limit import peak_memory
from kdp.stages.paths import chain_paths, check_input, fine_tunes
from kdp.stages.prune.budget import macs_by_width
from kdp.stages.prune.estimate import scoring_seconds
from kdp.stages.prune.prune import scoring_context
from kdp.stages.prune.score_cache import prunable
from kdp.stages.replacing import check_targets
from kdp.stages.train.dynamic import add_dynamic
from kdp.stages.train.objective import build_objective
from kdp.stages.train.request import DynamicRequest, Stage, TrainingRequest
from kdp.stages.train.train import starting_point
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.training.job import check_batch
from kdp.training.step_errors import batch_norm_explained, nonfinite_loss, unusable_batch
from kdp.types import Arch

MIN_FREE_BYTES = 200_000_000


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what is checked.
        passed: whether a run can start, as far as this check goes.
        message: the result, or why it failed.
    """

    name: str
    passed: bool
    message: str


@dataclass
class _State:
    """What the checks share: the network that an earlier one loaded is used by later ones."""

    config: Config
    model: nn.Module = field(default_factory=nn.Module)
    arch: Arch = field(default_factory=lambda: Arch(""))

    @cached_property
    def task(self) -> Task:
        return task_for(self.arch, self.config)


def validate(config: Config) -> Iterator[Check]:
    """Check everything that a run needs, until a check fails. Nothing is written."""
    state = _State(config)
    checks: dict[str, Callable[[_State], str]] = {
        "device": lambda state: str(pick_device(state.config.device)),
        "output": _output,
        "network": _network,
        "data": _data,
    }
    chain = _is_chain(config)
    if chain:
        checks["prune"] = _prune
    stages: tuple[Stage, ...] = ("finetune",) if chain else ("train", "finetune")
    for stage in stages:
        if stage == "finetune" and not fine_tunes(config):
            continue
        if getattr(config, stage) is not None:
            checks[stage] = partial(_training, stage=stage)
    if config.dynamic is not None:
        checks["dynamic"] = _dynamic
    for name, check in checks.items():
        try:
            yield Check(name, True, check(state))
        except KdpError as error:
            yield Check(name, False, str(error))
            return


def _is_chain(config: Config) -> bool:
    """Whether the configuration is for `kdp prune` and later stages.

    It may still have the section `train`, inherited from the file that it includes.
    """
    budget = config.mac_constraint or config.pruning_ratio or config.rounds
    return bool(budget) and config.dynamic is None and config.teacher is not None


def _output(state: _State) -> str:
    """The output folders, or their nearest existing parents, are writable and have free space.

    What a stage would write may be replaced; an unfinished run may be there, to be resumed.
    """
    config = state.config
    experiments = [config.experiments.folder] if config.experiments else []
    for folder in (*experiments, config.output.runs, config.output.dir):
        check_writable(folder)
        free = free_bytes(folder)
        if free < MIN_FREE_BYTES:
            raise KdpError(f"{folder} has {free / 1e6:.0f} MB left on its disk")
    check_targets(_targets(config))
    return f"{config.output.dir} is writable, {free / 1e9:.0f} GB free"


def _targets(config: Config) -> list[Path]:
    """The networks and masks that the stages of a configuration write."""
    paths = chain_paths(config)
    if not _is_chain(config):
        return [paths.trained, paths.last]
    return [paths.pruned, paths.masks, paths.finetuned, paths.rebuilt]


def _network(state: _State) -> str:
    """Load the teacher, or build the network to train."""
    config = state.config
    expected = config.model.arch if config.model else None
    if config.teacher is not None and (_is_chain(config) or config.train is None):
        check_input(config, "teacher", config.teacher)
        state.model, state.arch, _ = load_network(config.teacher, expected)
        source = str(config.teacher)
    elif config.model:
        if config.model.weights is not None:
            check_input(config, "model.weights", config.model.weights)
        state.model, state.arch = starting_point(config.model, config)
        source = str(config.model.weights or "new weights")
    else:
        raise KdpError("the configuration names neither `teacher` nor `model`")
    count = count_parameters(state.model)
    return f"loaded {state.arch.name} ({source}), {count:,} parameters"


def _data(state: _State) -> str:
    task = state.task
    check_disjoint(task.training_samples, task.evaluation_sets)
    counts = task.check_data()
    return "read " + ", ".join(f"{count} {name} samples" for name, count in counts.items())


def _prune(state: _State) -> str:
    """Score a few units as `kdp prune` does, and estimate the time of all."""
    config, task = state.config, state.task
    settings, groups = config.prune, task.groups(state.model)
    macs_by_width(task, state.arch, groups)({})
    candidates = prunable(settings, task, state.model)
    context = scoring_context(config.device, config.seed, task, state.model, groups)
    score = make_scorer(settings.criterion, context, settings.options)
    seconds = scoring_seconds(score, candidates)
    units = sum(group.units for group in candidates)
    measuring = f"measuring their importance takes roughly {duration(seconds)}"
    return f"{units} units; {measuring}; {_memory()}"


def _training(state: _State, stage: Stage) -> str:
    """Time one forward and backward pass, teachers included, without the optimizer."""
    request = TrainingRequest.from_config(state.config, stage)
    count, reduction = state.task.sample_counts["training"], state.task.task_reduction
    request = request.counted(count, reduction)
    settings, device = request.settings, pick_device(request.device)
    objective = build_objective(state.task, state.model, request.distill, settings.steps)
    objective.extra_modules.to(device)
    data = objective.data(settings.batch_size * settings.steps)
    check_batch(data[0], settings.batch_size)
    samples = [data[i] for i in range(settings.batch_size)]
    batch = {key: torch.stack([s[key] for s in samples]).to(device) for key in samples[0]}
    if reason := unusable_batch(batch, 0):
        raise KdpError(reason)
    model = state.model.to(device).train()

    def step() -> None:
        with batch_norm_explained(settings.batch_size):
            loss, parts = objective.objective(model, batch, 0)
        if not loss.isfinite():
            raise KdpError(nonfinite_loss(float(loss.detach()), 0, parts))
        loss.backward()

    seconds = _seconds(step)
    total = f"{settings.steps} steps take roughly {duration(seconds * settings.steps)}"
    return f"ran 1 step in {seconds:.2f} s; {total}; {_memory()}"


def _dynamic(state: _State) -> str:
    """Add the gates, and make sure that the budget can be reached."""
    request = DynamicRequest.from_config(state.config)
    request = request.counted(state.task.sample_counts["training"])
    dynamic = add_dynamic(request, state.task, state.model.cpu(), state.arch)
    units = sum(group.units for group in dynamic.pruner.groups)
    return f"added gates to {units} units; target: {request.mac_constraint} of the MACs"


def _seconds(run: Callable[[], object]) -> float:
    """Seconds of the second of two runs; the first one warms up."""
    run()
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _memory() -> str:
    """Peak memory of this process."""
    host = peak_memory()
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return f"peak memory {host / 1e9:.1f} GB" + (f", GPU {device / 1e9:.1f} GB" if device else "")
