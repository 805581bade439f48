"""One round of progressive pruning: prune, fine-tune, rebuild, measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kdp.artifacts import load
from kdp.config import Config, RoundConfig, TeacherConfig, TrainConfig
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.files import sha256
from kdp.log import log
from kdp.measure.complexity import parameters
from kdp.models.loading import load_network
from kdp.stages.costs import costs_of, deployed_parameters
from kdp.stages.deployed import deployed
from kdp.stages.experiments.store import ExperimentRequest, RunLabel, store_result
from kdp.stages.paths import ChainPaths, chain_paths, check_input
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.settings import FREE, flatten
from kdp.stages.train.finetune import finetune
from kdp.tasks import task_for
from kdp.tasks.base import Metrics, Task

Row = dict[str, Any]
State = dict[str, Any]
"""Progress of one round: the settings it belongs to, hashes of its files, and its table row."""


@dataclass(frozen=True)
class RoundsRequest:
    """What pruning in rounds needs of a configuration, checked once.

    Attributes:
        config: the whole configuration.
        teacher: the network of the first round.
        finetune: of every round, but for the length where a round has its own.
        rounds: one entry for each.
    """

    config: Config
    teacher: Path
    finetune: TrainConfig
    rounds: list[RoundConfig]

    @classmethod
    def from_config(cls, config: Config) -> RoundsRequest:
        """The request of a configuration.

        Raises:
            KdpError: a section or the teacher's file is missing.
        """
        if config.teacher is None or config.finetune is None or not config.rounds:
            raise KdpError("pruning in rounds needs `teacher`, `finetune` and `rounds`")
        check_input(config, "teacher", config.teacher)
        return cls(config, config.teacher, config.finetune, config.rounds)

    def count_samples(self) -> int | None:
        """Number of training samples; None where no length is given in epochs."""
        if not any(length.uses_epochs for length in (self.finetune, *self.rounds)):
            return None
        task = task_for(load_network(self.teacher)[1], self.config)
        return task.sample_counts["training"]

    def round(self, number: int, previous: Path) -> Round:
        """Round `number`, from 1, which prunes the network in the file `previous`."""
        settings, config = self.rounds[number - 1], self.config
        finetune = self.finetune_of(settings)
        distill = config.distill
        if distill and distill.teacher is None:  # the first round's teacher teaches all rounds
            distill = distill.model_copy(update={"teacher": TeacherConfig(weights=self.teacher)})
        name = f"{config.output.name}_round{number}"
        changes = {
            "output": config.output.model_copy(update={"name": name}),
            "model": config.model if number == 1 else None,  # later networks are smaller
            "teacher": previous,
            "distill": distill,
            "finetune": finetune,
            "pruning_ratio": settings.pruning_ratio,
            "rounds": None,
            "experiments": None,  # one experiment a round, not one for each of its stages
        }
        config = config.model_copy(update=changes)
        label = replace(RunLabel.now(name, "prune"), round=number, unpruned=self.unpruned)
        return Round(config, number, previous, finetune, label)

    def finetune_of(self, settings: RoundConfig) -> TrainConfig:
        """The section `finetune` with the length of a round, if that has its own."""
        if settings.steps is None and settings.epochs is None:
            return self.finetune
        length = {"steps": settings.steps, "epochs": settings.epochs}
        return self.finetune.model_copy(update=length)

    @cached_property
    def unpruned(self) -> int:
        """Deployed parameters of the first round's network."""
        return deployed_parameters(load_network(self.teacher)[1])


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        config: as the stages of the round get it.
        number: from 1.
        teacher: the network that is pruned.
        finetune: the section of this round.
        label: of its run and of its experiment.
    """

    config: Config
    number: int
    teacher: Path
    finetune: TrainConfig
    label: RunLabel

    @cached_property
    def paths(self) -> ChainPaths:
        """The files of the round."""
        return chain_paths(self.config)

    def run(self, state: State, save_state: Callable[[State], None]) -> State:
        """Prune, fine-tune and rebuild, from where an earlier run was stopped.

        Args:
            state: of the earlier run; `target` is kept, see `kdp.stages.prune.progressive`.
            save_state: called with the new state whenever a stage has finished.
        """
        paths, target = self.paths, state.get("target")
        key = {"from": sha256(self.teacher), "settings": self._settings()}
        if flatten(state.get("key") or {}) != flatten(key):
            state = {"key": key, "target": target}
        is_pruned = _unchanged(state, "pruned", paths.pruned, paths.masks)
        if not is_pruned:
            # A checkpoint of other masks would be resumed otherwise.
            paths.checkpoint.unlink(missing_ok=True)
            prune(self.config, resume=True, overwrite=True, later_round=self.number > 1)
            state = {"key": key, "target": target, "pruned": _hashes(paths.pruned, paths.masks)}
            save_state(state)
        elif _unchanged(state, "rebuilt", paths.rebuilt):
            log.info(f"Round {self.number} was finished by an earlier run")
            save_state(state)
            return state
        resume = is_pruned and paths.checkpoint.exists()
        finetune(self.config, resume=resume, overwrite=True, label=self.label)
        rebuild(self.config, fuse=False, overwrite=True)  # a fused network cannot be pruned again
        state = {**state, "rebuilt": _hashes(paths.rebuilt), "row": self._row()}
        save_state(state)
        paths.checkpoint.unlink(missing_ok=True)
        return state

    def keep_result(self, config: Config, metrics: Mapping[str, Metrics]) -> None:
        """Store the round's network as an experiment, if `config` keeps experiments."""
        config = self.config.model_copy(update={"experiments": config.experiments})
        request = ExperimentRequest.from_config(config)
        if request is None:
            return
        path = self.paths.rebuilt
        model, arch, _ = load_network(path)
        task = task_for(arch, config)
        store_result(request, "prune", path, task, model, metrics, self.label)

    def _row(self) -> Row:
        pruned, arch, _ = load_network(self.paths.pruned)
        task = task_for(arch, self.config)  # of both networks: evaluation sets are read once
        row = {
            "round": self.number,
            "pruning_ratio": self.config.pruning_ratio,
            **self._length(),
            "before": task.evaluate(pruned.to(pick_device(self.config.device))),
        }
        return measure(self.config, self.paths.rebuilt, row, task)

    def _length(self) -> dict[str, float]:
        """Steps and epochs of the fine-tuning."""
        record = load(self.paths.finetuned).record
        assert record is not None
        return {key: record.training[key] for key in ("steps", "epochs")}

    def _settings(self) -> dict[str, Any]:
        """What a round must share with the one that it resumes."""
        plain = self.config.plain()
        keys = ("seed", "data", "evaluation", "prune", "distill", "pruning_ratio")
        finetune = self.finetune.model_dump(mode="json", exclude=FREE - {"steps", "epochs"})
        return {**{key: plain[key] for key in keys}, "finetune": finetune}


def measure(config: Config, path: Path, row: Mapping[str, Any], task: Task | None = None) -> Row:
    """A row of the table, with metrics, parameters, MACs and size of a network.

    Parameters, MACs and sizes are those of the network as it would be deployed, see
    `kdp.stages.deployed`; `nonzero` counts its parameters that are not zero. Without a `task` that
    of the network is made, which reads the evaluation sets.
    """
    model, arch, artifact = load_network(path)
    task = task or task_for(arch, config)
    small, small_arch = deployed(model, arch, artifact, task)
    costs = costs_of(small_arch, task)
    return {
        **row,
        "metrics": task.evaluate(model.to(pick_device(config.device))),
        "primary_metric": task.primary_metric,
        "parameters": costs.parameters,
        "macs": costs.macs,
        "nonzero": parameters(small)[1],
        "bytes": costs.bytes["fp32"],
        "bytes_fp16": costs.bytes["fp16"],
        "bytes_int8": costs.bytes["int8"],
    }


def _unchanged(state: State, key: str, *paths: Path) -> bool:
    """Whether the files are those whose hashes the state holds."""
    return key in state and all(p.exists() for p in paths) and state[key] == _hashes(*paths)


def _hashes(*paths: Path) -> list[str]:
    return [sha256(path) for path in paths]
