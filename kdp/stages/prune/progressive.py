"""`kdp prune` with `rounds`: prune a little, fine-tune, rebuild, and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kdp.artifacts import load, read_parents
from kdp.config import Config
from kdp.contents import RoundContent, read_json
from kdp.errors import KdpError
from kdp.files import file_lock, write_atomic
from kdp.models import fused_arch
from kdp.serialize import json_text
from kdp.stages.paths import chain_paths, do_nothing
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.prune.round import Round, RoundsRequest, Row, State, measure
from kdp.stages.replacing import ELSEWHERE, TrainingTargets, check_targets
from kdp.stages.train.request import TrainingRequest
from kdp.training.checkpoint import file_state
from kdp.training.shutdown import stop_at_once

UNKNOWN = "unknown"
"""State of the target in progress that an older version wrote."""


@dataclass(frozen=True)
class Rounds:
    """What progressive pruning wrote.

    Attributes:
        path: the network after the last round, fused where it can be.
        rows: measurements before the first and after each round, see `kdp.stages.prune.round`;
            `sparsity` is the fraction of the first network's parameters that was removed.
        table: the rows as a JSON file.
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
        resume: continue at the round and step where an earlier run was stopped.
        overwrite: replace whatever is there.
        rerun: resume what fits, replace what an earlier rerun made.
        on_ready: called once the inputs are valid.

    Raises:
        KdpError: `teacher`, `finetune` or `rounds` is missing, a file may not be replaced; or see
            the stages.
        Interrupted: on SIGINT, SIGTERM or SIGHUP; `--resume` continues.
    """
    request = RoundsRequest.from_config(config)
    paths = chain_paths(config)
    with file_lock(paths.rounds), stop_at_once("stopped; continue with --resume"):
        earlier = _earlier_states(request, resume, overwrite, rerun)
        rows = [measure(config, request.teacher, {"round": 0, "sparsity": 0.0})]
        on_ready()
        target_before = file_state(paths.rebuilt)
        states: list[State] = []
        previous = request.teacher
        for number in range(1, len(request.rounds) + 1):
            current = request.round(number, previous)
            known = earlier[number - 1] if len(earlier) >= number else {}
            # What an earlier run has finished of later rounds stays in the file: an interruption
            # before them loses nothing.
            save = partial(_save_progress, paths.rounds, list(states), earlier[number:])
            states.append(current.run({**known, "target": target_before}, save))
            row = states[-1]["row"]
            if states[-1]["rebuilt"] != known.get("rebuilt"):
                current.keep_result(config, row["metrics"])
            rows.append({**row, "sparsity": 1 - row["parameters"] / request.unpruned})
            previous = current.paths.rebuilt
        _write_last(config, previous, paths.rebuilt)
    return Rounds(paths.rebuilt, rows, _write_table(paths.rounds, rows))


def _earlier_states(
    request: RoundsRequest, resume: bool, overwrite: bool, rerun: bool
) -> list[State]:
    """The rounds to continue from; none in a new run, once it may replace the files."""
    earlier = read_progress(chain_paths(request.config).rounds)
    resume = resume or (rerun and bool(earlier))
    if not overwrite:
        _check_files(request, earlier, resume, rerun)
    return earlier if resume else []


def _write_table(rounds: Path, rows: list[Row]) -> Path:
    table = rounds.with_name("table.json")
    write_atomic(table, json_text(rows).encode())
    return table


def read_progress(path: Path) -> list[State]:
    """The state of each round, from the first on; empty where no run has started.

    Raises:
        KdpError: the file cannot be read.
    """
    try:
        states: list[State] = read_json(path, list[RoundContent])
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KdpError(f"cannot read {path}: {error.strerror}") from error
    except KdpError as error:
        raise KdpError(f"{error}; delete it") from error
    return states


def _save_progress(path: Path, done: list[State], later: list[State], state: State) -> None:
    write_atomic(path, json_text([*done, state, *later]).encode())


def _check_files(request: RoundsRequest, earlier: list[State], resume: bool, rerun: bool) -> None:
    """Make sure that the files of all rounds may be replaced, before the first one starts."""
    paths = chain_paths(request.config)
    if resume and _target_unchanged(earlier, paths.rebuilt):
        return
    files = [paths.rebuilt, paths.rounds, paths.rounds.with_name("table.json")]
    previous, samples = request.teacher, request.count_samples()
    for number in range(1, len(request.rounds) + 1):
        current = request.round(number, previous)
        own = current.paths
        files += [own.pruned, own.masks, own.scores, own.finetuned, own.rebuilt]
        _finetuning_targets(current, samples).check_result(rerun)
        previous = own.rebuilt
    check_targets(files)
    if not resume:
        _check_unfinished(paths.rounds, paths.rebuilt, earlier, len(request.rounds))


def _finetuning_targets(current: Round, samples: int | None) -> TrainingTargets:
    request = replace(TrainingRequest.from_config(current.config, "finetune"), samples=samples)
    teachers = read_parents(request.distill.teacher.files if request.distill else [])
    return TrainingTargets(request, [current.paths.finetuned], [], teachers)


def _check_unfinished(progress: Path, target: Path, earlier: list[State], rounds: int) -> None:
    if _target_unchanged(earlier, target):
        done = sum("rebuilt" in state for state in earlier)
        raise KdpError(
            f"{progress} holds an unfinished run at round {min(done + 1, rounds)} of {rounds}: "
            "--resume or --overwrite it"
        )
    if len(earlier) > rounds:
        raise KdpError(
            f"{target} would be replaced, and it took {len(earlier)} rounds, this run {rounds}: "
            f"{ELSEWHERE}"
        )


def _target_unchanged(earlier: list[State], target: Path) -> bool:
    """Whether an earlier run has not finished: at its end it replaces the chain's network."""
    return bool(earlier) and earlier[0].get("target", UNKNOWN) == file_state(target)


def _write_last(config: Config, last: Path, target: Path) -> None:
    """Write the last round's network under the chain's own name, fused where it can be."""
    arch = load(last).arch
    if arch is not None and fused_arch(arch) != arch:
        # The last round's experiment has the costs of the fused network already.
        whole = config.model_copy(update={"rounds": None, "experiments": None})
        rebuild(whole, source=last, target=target, overwrite=True)
    else:
        write_atomic(target, last.read_bytes())
