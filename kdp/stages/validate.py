"""`kdp validate`: would a configuration run, how long, and in how much memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import nn

from kdp.config import Config, TrainConfig
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.files import check_writable, free_bytes
from kdp.measure.complexity import count_parameters
from kdp.models.loading import load_network
from kdp.pruning.resource_limit import peak_memory
from kdp.stages.prune.budget import macs_by_width
from kdp.stages.train.dynamic import add_dynamic
from kdp.stages.train.job import check_evaluation
from kdp.stages.train.objective import build_objective
from kdp.stages.train.train import starting_point
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.types import Arch

LEAST_DISK = 200_000_000


@dataclass(frozen=True)
class Check:
    """One thing looked at, whether it is well, and what was found."""

    what: str
    passed: bool
    found: str


@dataclass
class _Found:
    """What earlier checks brought, for later ones."""

    config: Config
    model: nn.Module = field(default_factory=nn.Module)
    arch: Arch = field(default_factory=lambda: Arch(""))

    @cached_property
    def task(self) -> Task:
        return task_for(self.arch, self.config)


def validate(config: Config) -> Iterator[Check]:
    """Look at everything a run needs, one check at a time, until one fails; nothing is written."""
    found = _Found(config)
    checks: dict[str, Callable[[_Found], str]] = {
        "device": lambda f: str(pick_device(f.config.device)),
        "output": _output,
        "network": _network,
        "data": _data,
    }
    chain = _is_chain(config)
    if chain:
        checks["prune"] = _prune
    for stage in ("finetune",) if chain else ("train", "finetune"):
        settings = getattr(config, stage)
        if settings is not None:
            checks[stage] = partial(_training, settings=settings)
    if config.dynamic is not None:
        checks["dynamic"] = _dynamic
    for what, look in checks.items():
        try:
            yield Check(what, True, look(found))
        except KdpError as error:
            yield Check(what, False, str(error))
            return


def _is_chain(config: Config) -> bool:
    """Whether this is for `kdp prune` and what follows; sections for training may be inherited."""
    budget = config.mac_constraint or config.pruning_ratio or config.rounds
    return bool(budget) and config.dynamic is None and config.teacher is not None


def _output(found: _Found) -> str:
    """The folders, or the nearest above them that exist, take files and have room."""
    config = found.config
    kept = [config.experiments.folder] if config.experiments else []
    for wanted in (*kept, config.output.runs, config.output.dir):
        check_writable(wanted)
        free = free_bytes(wanted)
        if free < LEAST_DISK:
            raise KdpError(f"{wanted} has {free / 1e6:.0f} MB left on its disk")
    return f"{config.output.dir}, {free / 1e9:.0f} GB free"


def _network(found: _Found) -> str:
    """The teacher, or the network to train, and that the budget and taps fit it."""
    config = found.config
    expected = config.model.arch if config.model else None
    if config.teacher is not None and (_is_chain(config) or config.train is None):
        found.model, found.arch, _ = load_network(config.teacher, expected)
        source = str(config.teacher)
    elif config.model:
        found.model, found.arch = starting_point(config.model)
        source = str(config.model.weights or "new")
    else:
        raise KdpError("the configuration names neither `teacher` nor `model`")
    count = count_parameters(found.model)
    return f"{found.arch.name} ({source}), {count:,} parameters"


def _data(found: _Found) -> str:
    counts = found.task.check_data()
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) + " samples"


def _prune(found: _Found) -> str:
    """One calibration pass, and what all units will take at about half a pass each."""
    task, device = found.task, pick_device(found.config.device)
    groups = task.groups(found.model)
    macs_by_width(task, found.arch, groups)({})
    inputs = task.inputs(task.calibration_data()).to(device)
    model = found.model.to(device).eval()
    with torch.no_grad():
        seconds = _seconds(lambda: model(inputs))
    units = sum(group.units for group in groups)
    minutes = seconds * units / 2 / 60
    return f"{units} units, about {minutes:.1f} min for a trajectory criterion; {_memory()}"


def _training(found: _Found, settings: TrainConfig) -> str:
    """One training step without its optimizer, teachers included, and what all will take."""
    check_evaluation(found.config)
    device = pick_device(found.config.device)
    objective = build_objective(found.task, found.model, found.config, settings.steps)
    objective.extra_modules.to(device)
    data = objective.data(settings.batch_size * settings.steps)
    samples = [data[i] for i in range(settings.batch_size)]
    batch = {key: torch.stack([s[key] for s in samples]).to(device) for key in samples[0]}
    model = found.model.to(device).train()

    def step() -> None:
        loss, _ = objective.objective(model, batch, 0)
        if not loss.isfinite():
            raise KdpError("the loss of the first batch is not finite")
        loss.backward()

    seconds = _seconds(step)
    hours = seconds * settings.steps / 3600
    return f"{settings.steps} steps of {seconds:.2f} s, about {hours:.2f} h; {_memory()}"


def _dynamic(found: _Found) -> str:
    """Gates on every group, and a budget that can be reached."""
    dynamic = add_dynamic(found.config, found.task, found.model.cpu(), found.arch)
    units = sum(group.units for group in dynamic.pruner.groups)
    return f"{units} units with gates, to {found.config.mac_constraint} of the MACs"


def _seconds(run: Callable[[], object]) -> float:
    """The time of the second of two runs."""
    run()
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _memory() -> str:
    """The most memory this process has taken so far."""
    host = peak_memory()
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return f"{host / 1e9:.1f} GB" + (f", {device / 1e9:.1f} GB on the GPU" if device else "")
