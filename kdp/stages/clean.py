"""`kdp clean`: delete what the stages of a configuration wrote, and nothing else."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kdp.config import Config
from kdp.errors import KdpError
from kdp.files import is_locked, real_path
from kdp.log import log
from kdp.stages.paths import chain_paths, locked_paths
from kdp.stages.replacing import (
    RUN_FILES,
    TABLES,
    is_log_of_kdp,
    protection_and_record,
    tracked_by_git,
)
from kdp.temporary import remove_abandoned
from kdp.training.job import WANDB_FOLDER
from kdp.types import Provenance

WANDB_NAMES = ("offline-run-", "run-", "latest-run", "debug", "logs")
"""How the names begin that W&B gives in its folder."""
ROUNDS = ("rounds.json", "table.json")


def clean(config: Config) -> list[Path]:
    """Delete the files of a chain: artifacts whose record names it, its checkpoints and its logs.

    The runs of Weights & Biases in the folders of its logs are among them.

    What git tracks, a weight that comes with kdp and what kdp did not write stay, with a line each.

    Raises:
        KdpError: a stage of the chain is running, or a file cannot be deleted.
    """
    running = next((path for path in locked_paths(config) if is_locked(path)), None)
    if running:
        raise KdpError(f"a stage is writing {running}; wait for it or stop it")
    candidates = [*artifact_candidates(config)], [*log_candidates(config)]
    artifacts, logs = ([path for path in paths if path.is_file()] for paths in candidates)
    kept = tracked_by_git([*artifacts, *logs])
    deleted = []
    for folder in {path.parent for paths in candidates for path in paths}:
        remove_abandoned(folder)
    for folder in filter(_is_of_wandb, run_folders(config)):
        deleted.append(_delete_folder(folder / WANDB_FOLDER))
    for path in [*artifacts, *logs]:
        reason = "git tracks it" if path in kept else _reason_to_keep(path, config, path in logs)
        if reason:
            log.info(f"{path} stays: {reason}")
        else:
            _delete(path)
            deleted.append(path)
    return deleted


def artifact_candidates(config: Config) -> Iterator[Path]:
    """Where the artifacts of a configuration would be."""
    paths = chain_paths(config)
    yield from (paths.pruned, paths.masks, paths.scores, paths.recovered, paths.finetuned)
    yield from (paths.trained, paths.last, paths.rebuilt)
    yield from sorted(config.output.dir.glob(f"{_escaped(config)}_round[0-9]*_*.pth"))


def log_candidates(config: Config) -> Iterator[Path]:
    """Where checkpoints, curves and tables of a configuration would be."""
    paths = chain_paths(config)
    for folder in run_folders(config):
        yield from (folder / name for name in RUN_FILES)
    yield from (paths.table.with_name(name) for name in TABLES)
    yield from (paths.rounds.with_name(name) for name in ROUNDS)


def run_folders(config: Config) -> list[Path]:
    """Where the trainings of a configuration write their logs."""
    paths = chain_paths(config)
    rounds = sorted(config.output.runs.glob(f"{_escaped(config)}_round[0-9]*_finetune_*"))
    return [paths.training.parent, paths.checkpoint.parent, *rounds]


def _is_of_wandb(folder: Path) -> bool:
    """Whether a run of kdp has runs of W&B beside its curves, and nothing else among them."""
    runs = folder / WANDB_FOLDER
    if not is_log_of_kdp(folder / "curves.jsonl") or runs.is_symlink() or not runs.is_dir():
        return False
    known = all(path.name.startswith(WANDB_NAMES) for path in runs.iterdir())
    return known and not tracked_by_git([path for path in runs.rglob("*") if path.is_file()])


def _delete_folder(folder: Path) -> Path:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise KdpError(f"cannot delete {folder}: {error.strerror}") from error
    return folder


def _escaped(config: Config) -> str:
    return glob.escape(config.output.name)  # a name may have brackets and stars


def _reason_to_keep(path: Path, config: Config, is_log: bool) -> str | None:
    if is_log and path.suffix != ".pth":
        return None if is_log_of_kdp(path) else "kdp did not write it"
    reason, record = protection_and_record(path)
    return reason or (None if is_log else _other_origin(record, config))


def _other_origin(record: Provenance | None, config: Config) -> str | None:
    """Why an artifact of kdp belongs to another chain, according to its record."""
    output = record.config.get("output", {}) if record else {}
    name = str(output.get("name"))
    rounds = name.startswith(f"{config.output.name}_round")  # each round has its own name
    same_folder = real_path(Path(output.get("dir", ""))) == real_path(config.output.dir)
    if same_folder and (name == config.output.name or rounds):
        return None
    return "its record names another configuration"


def _delete(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise KdpError(f"cannot delete {path}: {error.strerror}") from error
    with suppress(OSError):  # it holds more files, or is the current folder
        path.parent.rmdir()
