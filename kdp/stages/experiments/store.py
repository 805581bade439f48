"""Recording experiments: a folder for each result, and one table of all.

experiments/results.csv             one row per experiment
experiments/<id>/config.yml         the resolved configuration, which loads again
                 checkpoint.pth     the artifact
                 predictions.csv    one row per evaluation sample
                 metrics.json       by evaluation set
                 info.json          provenance and cost
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from kdp.artifacts import Artifact
from kdp.config import Config
from kdp.devices import device_of, pick_device
from kdp.errors import KdpError
from kdp.files import sha256, sync_folder, write_atomic
from kdp.log import log
from kdp.measure.complexity import parameters
from kdp.measure.latency import device_name
from kdp.models.loading import load_network
from kdp.serialize import csv_of_mappings, json_text
from kdp.stages.costs import costs_of, deployed_parameters
from kdp.stages.deployed import deployed
from kdp.stages.experiments.results import (
    CHECKPOINT,
    CONFIG,
    INFO,
    METRICS,
    PREDICTIONS,
    ExperimentInfo,
    add_row,
    check_table,
)
from kdp.tasks import task_for
from kdp.tasks.base import EvaluationTask, Metrics, Task
from kdp.temporary import temporary_folder
from kdp.types import Arch, Provenance


@dataclass(frozen=True)
class ExperimentRequest:
    """What recording a result needs of a configuration.

    Attributes:
        folder: of all experiments.
        notes: text for the table.
        name: of the outputs, which the experiment's name begins with.
        config: the whole configuration in plain values.
    """

    folder: Path
    notes: str
    name: str
    config: dict[str, Any]

    @classmethod
    def from_config(cls, config: Config) -> ExperimentRequest | None:
        """The request of a configuration, None without the section `experiments`.

        Raises:
            KdpError: the folder or its table cannot be written.
        """
        section = config.experiments
        if section is None:
            return None
        check_table(section.folder)
        return cls(section.folder, section.notes, config.output.name, config.plain())


@dataclass(frozen=True)
class RunLabel:
    """What a run and its experiment are called, and their place in progressive pruning.

    Attributes:
        name: the experiment gets it, with a number if it is taken.
        round: of progressive pruning, from 1; None outside of it.
        unpruned: deployed parameters before anything was removed; None if the file shows it.
    """

    name: str
    round: int | None = None
    unpruned: int | None = None

    @classmethod
    def now(cls, output: str, stage: str) -> RunLabel:
        """The label of a stage that starts now and whose files begin with `output`."""
        time = datetime.now(timezone.utc)
        return cls(f"{output.replace('/', '-')}-{stage}-{time:%Y%m%d-%H%M%S}")


def record_network(
    request: ExperimentRequest | None,
    config: Config,
    stage: str,
    path: Path,
    unpruned: Arch | None = None,
    metrics: Mapping[str, Metrics] | None = None,
) -> None:
    """Evaluate the network of a stage that measures none itself, and record it.

    Without a request nothing is evaluated.

    Args:
        request: where to record it.
        config: of the chain.
        stage: the subcommand.
        path: the artifact, as the stage wrote it.
        unpruned: the network before anything was removed, if the file does not show it.
        metrics: by evaluation set, if they were measured.

    Raises:
        KdpError: something cannot be read or written.
    """
    if request is None:
        return
    model, arch, _ = load_network(path)
    task = task_for(arch, config)
    model.to(pick_device(config.device))
    label = RunLabel.now(request.name, stage)
    if unpruned is not None:
        label = replace(label, unpruned=deployed_parameters(unpruned))
    metrics = task.evaluate(model) if metrics is None else metrics
    store_result(request, stage, path, task, model, metrics, label)


def store_result(
    request: ExperimentRequest,
    stage: str,
    path: Path,
    task: Task,
    model: nn.Module,
    metrics: Mapping[str, Metrics],
    label: RunLabel,
) -> Path:
    """Record a result.

    Args:
        request: where, and what the configuration says of it.
        stage: the subcommand.
        path: the artifact, as the stage wrote it.
        task: makes the predictions.
        model: the network with the weights of the artifact, on the device to predict on.
        metrics: its quality by evaluation set.
        label: the name of the experiment, and its round.

    Returns:
        The folder of the experiment. It gets its name once complete, so that a killed run leaves no
        half experiment.

    Raises:
        KdpError: something cannot be read or written.
    """
    now = datetime.now(timezone.utc)
    with _new_folder(request.folder, label.name) as (unfinished, final):
        # Read back from the copy: what is recorded is then true of the file in the folder.
        checkpoint = unfinished / CHECKPOINT
        write_atomic(checkpoint, path.read_bytes())
        network = load_network(checkpoint)
        info = _provenance(checkpoint, network[2].record, request.notes, now, label.round)
        info = {"exp_id": final.name, "config": request.name, "stage": stage, **info}
        info |= {
            **_costs(*network, task, label.unpruned),
            **_quality(task, metrics),
            **_machine(model),
        }
        resolved = yaml.safe_dump(request.config, sort_keys=False)
        write_atomic(unfinished / CONFIG, resolved.encode())
        write_atomic(unfinished / PREDICTIONS, csv_of_mappings(task.predictions(model)).encode())
        write_atomic(unfinished / METRICS, json_text(dict(metrics)).encode())
        write_atomic(unfinished / INFO, json_text(info).encode())
    add_row(request.folder, info)
    log.info(f"Experiment recorded in {final}")
    return final


@contextmanager
def _new_folder(parent: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """A temporary folder to fill, and the name it gets at the end; removed if anything fails."""
    with ExitStack() as stack:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            unfinished, final = _reserve(stack, parent, name)
        except OSError as error:
            raise KdpError(f"cannot write {parent}: {error.strerror}") from error
        yield unfinished, final
        os.rename(unfinished, final)
        sync_folder(parent)


def _reserve(stack: ExitStack, parent: Path, name: str) -> tuple[Path, Path]:
    """The first free name, numbered if taken: `mkdir` decides between runs that start at once."""
    for number in count(1):
        final = parent / (name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            unfinished = stack.enter_context(temporary_folder(final))
            if not final.exists():
                break
            stack.close()
    return unfinished, final


def _provenance(
    checkpoint: Path,
    record: Provenance | None,
    notes: str,
    now: datetime,
    pruning_step: int | None,
) -> ExperimentInfo:
    if record is None:
        raise KdpError(f"{checkpoint} has no record of how it was made")
    parents = [{"path": parent.path, "sha256": parent.sha256} for parent in record.parents]
    return {
        "timestamp": now.isoformat(timespec="seconds"),
        "command": record.command,
        "seed": record.seed,
        "versions": record.versions,
        "git_commit": record.git_commit,
        "sha256": sha256(checkpoint),
        "pruning_step": pruning_step,
        "notes": notes,
        "parents": parents,
    }


def _costs(
    model: nn.Module, arch: Arch, artifact: Artifact, task: Task, unpruned: int | None
) -> ExperimentInfo:
    """What the network of a file costs as it will be deployed."""
    small, small_arch = deployed(model, arch, artifact, task)
    costs = costs_of(small_arch, task, unpruned or deployed_parameters(arch)).plain()
    return {"params": costs.pop("parameters"), "nonzero": parameters(small)[1], **costs}


def _quality(task: EvaluationTask, metrics: Mapping[str, Metrics]) -> ExperimentInfo:
    """The primary metric on the first evaluation set."""
    first = next(iter(metrics.values()))
    accuracy = first.get("macro_accuracy", first.get("accuracy"))
    return {
        "macro_avg_acc": accuracy,
        "primary_metric": task.primary_metric,
        "value": first[task.primary_metric],
        "protocol": task.metric_protocol,
    }


def _machine(model: nn.Module) -> ExperimentInfo:
    """What the last digits of predictions depend on."""
    device = device_of(model)
    names = {"device": str(device), "device_name": device_name(device)}
    return {**names, "threads": torch.get_num_threads()}
