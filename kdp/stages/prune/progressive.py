"""`kdp prune` with `rounds`: prune a little, recover, rebuild, and again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kdp.artifacts import load
from kdp.config import Config, ExperimentsConfig, RoundConfig, TeacherConfig
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.files import file_lock, sha256, write_atomic
from kdp.log import log
from kdp.measure.complexity import count_macs_of, parameter_bytes, parameters
from kdp.models import fuse, fused_arch
from kdp.models.loading import load_network
from kdp.serialize import json_text
from kdp.stages.experiments.store import store_result
from kdp.stages.paths import ChainPaths, chain_paths, do_nothing
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.replacing import ELSEWHERE, TrainingTargets, check_targets
from kdp.stages.train.finetune import finetune
from kdp.stages.train.objective import teacher_of
from kdp.tasks import task_for
from kdp.tasks.base import Metrics
from kdp.training.checkpoint import file_state

MISSING = "missing"
Row = dict[str, Any]
State = dict[str, Any]


@dataclass(frozen=True)
class Rounds:
    """What progressive pruning wrote.

    Attributes:
        path: the network after the last round, fused where it can be.
        rows: what was measured before the first and after each round, see `_measured`; `sparsity`
            is the share of the first network's parameters that is gone.
        table: the same as a file (JSON).
    """

    path: Path
    rows: list[Row]
    table: Path


def prune_in_rounds(
    config: Config,
    resume: bool = False,
    overwrite: bool = False,
    rerun: bool = False,
    on_ready: Callable[[], None] = do_nothing,
) -> Rounds:
    """Prune, fine-tune and rebuild once for every entry of `rounds`.

    Round n writes `{dir}/{name}_round<n>_*.pth`; the last network becomes
    `{dir}/{name}_rebuilt.pth`. Distillation has the same teacher in all rounds.

    Args:
        config: of the first round's network (`teacher`) and of everything.
        resume: go on at the round and step where an earlier run was stopped.
        overwrite: replace whatever is there.
        rerun: resume what fits, replace what an earlier rerun made.
        on_ready: called once the inputs are valid.

    Raises:
        KdpError: `teacher`, `finetune` or `rounds` is missing, a file may not be replaced; or see
            the stages.
        Interrupted: on SIGINT or SIGTERM; `--resume` goes on.
    """
    if config.teacher is None or config.finetune is None or not config.rounds:
        raise KdpError("pruning in rounds needs `teacher`, `finetune` and `rounds`")
    record, target = chain_paths(config).rounds, chain_paths(config).rebuilt
    with file_lock(record):
        before = read_states(record)
        resume = resume or (rerun and bool(before))
        if not overwrite:
            _check_files(config, before, resume, rerun)
        before = before if resume else []
        target_before = file_state(target)
        done: list[State] = []
        previous = config.teacher
        rows = [_measured(config, previous, {"round": 0, "sparsity": 0.0})]
        on_ready()
        for number, one in enumerate(config.rounds, 1):
            own = _round_config(config, number, one, previous)
            known = before[number - 1] if len(before) >= number else {}
            known = {**known, "target": target_before}
            note = partial(_note, record, list(done), before[number:])
            state = _round(own, known, number, note)
            done.append(state)
            if state["rebuilt"] != known.get("rebuilt"):
                _keep(own, config.experiments, number, state["row"]["metrics"])
            rows.append(state["row"])
            rows[-1]["sparsity"] = 1 - rows[-1]["nonzero"] / rows[0]["nonzero"]
            previous = chain_paths(own).rebuilt
        _finish(config, previous, target)
    table = record.with_name("table.json")
    write_atomic(table, json_text(rows).encode())
    return Rounds(target, rows, table)


def read_states(record: Path) -> list[State]:
    """What was noted of each round, from the first on; nothing where no run has started."""
    try:
        states = json.loads(record.read_text())
        return [dict(state) for state in states]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise KdpError(f"{record} cannot be read or is damaged: delete it") from error


def _check_files(config: Config, before: list[State], resume: bool, rerun: bool) -> None:
    """Make sure that the files of all rounds may be replaced, before the first one starts."""
    paths, rounds = chain_paths(config), config.rounds or []
    if resume and before and before[0].get("target", MISSING) == file_state(paths.rebuilt):
        return
    files = [paths.rebuilt, paths.rounds, paths.rounds.with_name("table.json")]
    previous = config.teacher or Path()
    for number, one in enumerate(rounds, 1):
        own = _round_config(config, number, one, previous)
        made = chain_paths(own)
        files += [made.pruned, made.masks, made.scores, made.finetuned, made.rebuilt]
        TrainingTargets(
            own, "finetune", [made.finetuned], made.checkpoint.parent, [], _teachers(own)
        ).check_result(rerun)
        previous = made.rebuilt
    check_targets(files)
    if not resume:
        _check_unfinished(paths, before, len(rounds))


def _check_unfinished(paths: ChainPaths, before: list[State], rounds: int) -> None:
    """A run has finished once the network of its last round has replaced the chain's."""
    if not before or before[0].get("target", MISSING) != file_state(paths.rebuilt):
        if len(before) > rounds:
            raise KdpError(
                f"{paths.rebuilt} would be replaced, and it took {len(before)} rounds, this run "
                f"{rounds}: {ELSEWHERE}"
            )
        return
    done = sum("rebuilt" in state for state in before)
    raise KdpError(
        f"{paths.rounds} holds an unfinished run ({done} of {rounds} rounds are done): "
        "go on with --resume, or start over with --overwrite"
    )


def _teachers(own: Config) -> list[Path]:
    return teacher_of(own).files if own.distill else []


def _round_config(config: Config, number: int, one: RoundConfig, previous: Path) -> Config:
    """The configuration of one round, as the stages know it."""
    assert config.teacher is not None
    assert config.finetune is not None
    distill = config.distill
    if distill and distill.teacher is None:
        distill = distill.model_copy(update={"teacher": TeacherConfig(weights=config.teacher)})
    name = f"{config.output.name}_round{number}"
    return config.model_copy(
        update={
            "output": config.output.model_copy(update={"name": name}),
            "model": config.model if number == 1 else None,
            "teacher": previous,
            "distill": distill,
            "finetune": config.finetune.model_copy(update={"steps": one.steps}),
            "pruning_ratio": one.pruning_ratio,
            "rounds": None,
            "experiments": None,  # a round is kept whole, not each of its stages
        }
    )


def _round(own: Config, state: State, number: int, note: Callable[[State], None]) -> State:
    """One round, from where it was stopped; `note` keeps what is done."""
    paths = chain_paths(own)
    key = {"from": sha256(_teacher(own)), "settings": _settings(own)}
    if state.get("key") != key:
        state = {"key": key, "target": state.get("target")}
    begun = _there(state, "pruned", paths.pruned, paths.masks)
    if not begun:
        paths.checkpoint.unlink(missing_ok=True)
        prune(own, resume=True, overwrite=True)
        state = {"key": key, "target": state.get("target")}
        state["pruned"] = _hashes(paths.pruned, paths.masks)
        note(state)
    elif _there(state, "rebuilt", paths.rebuilt):
        log.info(f"round {number}: done before")
        note(state)
        return state
    finetune(own, resume=begun and paths.checkpoint.exists(), overwrite=True)
    rebuild(own, fuse=False, overwrite=True)
    row: Row = {"round": number, "pruning_ratio": own.pruning_ratio, "steps": _steps(own)}
    row["before"] = _quality(own, paths.pruned)
    state = {**state, "rebuilt": _hashes(paths.rebuilt), "row": _measured(own, paths.rebuilt, row)}
    note(state)
    paths.checkpoint.unlink(missing_ok=True)
    return state


def _settings(own: Config) -> dict[str, Any]:
    """What a round must share with the one it goes on with."""
    plain = own.plain()
    assert own.finetune is not None
    free = {"validate_every", "checkpoint_every", "log_every", "trackers"}
    keep = ("seed", "data", "evaluation", "prune", "distill", "pruning_ratio")
    settings = own.finetune.model_dump(mode="json", exclude=free)
    return {**{key: plain[key] for key in keep}, "finetune": settings}


def _measured(own: Config, path: Path, about: Mapping[str, Any]) -> Row:
    """Quality, parameters, MACs, bytes of parameters and sparsity of a round's network.

    Size and MACs are those of the network as it would be deployed, fused where it can be;
    `nonzero` counts its parameters that are not zero.
    """
    model, arch, _ = load_network(path)
    small, _ = fuse(model, arch)
    task = task_for(arch, own)
    count, nonzero = parameters(small)
    return {
        **about,
        "metrics": task.evaluate(model.to(pick_device(own.device))),
        "primary_metric": task.primary_metric,
        "parameters": count,
        "macs": count_macs_of(fused_arch(arch), task.example(task.input_size)),
        "nonzero": nonzero,
        "bytes": parameter_bytes(count),
        "bytes_fp16": parameter_bytes(count, 16),
    }


def _keep(
    own: Config, where: ExperimentsConfig | None, number: int, metrics: Mapping[str, Metrics]
) -> None:
    """The round's network among the experiments, where those are kept."""
    path, own = chain_paths(own).rebuilt, own.model_copy(update={"experiments": where})
    model, arch, _ = load_network(path)
    store_result(own, "prune", path, task_for(arch, own), model, metrics, pruning_step=number)


def _quality(own: Config, path: Path) -> dict[str, Metrics]:
    model, arch, _ = load_network(path)
    return task_for(arch, own).evaluate(model.to(pick_device(own.device)))


def _finish(config: Config, last: Path, target: Path) -> None:
    """The last round's network under the chain's own name, fused where it can be."""
    arch = load(last).arch
    assert arch is not None
    if fused_arch(arch) == arch:
        write_atomic(target, last.read_bytes())
    else:
        rebuild(
            config.model_copy(update={"rounds": None}), source=last, target=target, overwrite=True
        )


def _note(path: Path, done: list[State], later: list[State], state: State) -> None:
    """Keep how far the rounds are, and how far an earlier run came."""
    write_atomic(path, json_text([*done, state, *later]).encode())


def _there(state: State, what: str, *paths: Path) -> bool:
    """Whether these files are the ones that were noted."""
    return what in state and all(p.exists() for p in paths) and state[what] == _hashes(*paths)


def _hashes(*paths: Path) -> list[str]:
    return [sha256(path) for path in paths]


def _teacher(own: Config) -> Path:
    assert own.teacher is not None
    return own.teacher


def _steps(own: Config) -> int:
    assert own.finetune is not None
    return own.finetune.steps
