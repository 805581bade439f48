"""The chains of the current folder, which stages without `--config` continue.

A chain is the set of files that stages write for one `output.dir` and `output.name`. Stages note
in `.kdp/chains.json` which configuration and overrides a chain was started with, so that `kdp
finetune` after `kdp prune --config FILE mac_constraint=0.5` needs neither again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from kdp.config import Config
from kdp.config.compose import load_config
from kdp.config.overrides import split_override
from kdp.contents import ChainsContent, read_json
from kdp.errors import KdpError, join_names
from kdp.files import file_lock, is_locked, write_atomic
from kdp.log import log
from kdp.serialize import json_text
from kdp.stages.paths import locked_paths
from kdp.training.processes import is_main_process

CHAINS_FILE = Path(".kdp", "chains.json")
NO_CHAINS = "KDP_NO_CHAINS"
"""Environment variable: stages note no chain. `kdp sweep` sets it for its points."""

VERSION = 1
LOCK_TIMEOUT = 10.0
NOT_INHERITED = {"device"}
SECTIONS = {
    "train": ("model", "train"),
    "cache-targets": ("distill",),
    "prune": ("teacher",),
    "recover": ("teacher",),
    "finetune": ("finetune",),
}
"""Sections of the configuration without which a stage cannot start."""
ORDER = ("train", "prune", "recover", "finetune", "rebuild")
"""Each reads what the ones before it wrote."""
START = "start one with `kdp train --config FILE` or `kdp prune --config FILE`"

T = TypeVar("T")


@dataclass(frozen=True)
class Chain:
    """A chain as `.kdp/chains.json` holds it.

    Attributes:
        config: the configuration file, as it was given.
        overrides: what was changed in it, without `device`.
        output_dir, output_name: where its files are.
        stage: the stage that ran last.
        time: when that was noted, UTC, ISO 8601.
        finished: whether that stage succeeded.
    """

    config: Path
    overrides: tuple[str, ...]
    output_dir: Path
    output_name: str
    stage: str
    time: str
    finished: bool

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Chain:
        """A chain from the values in the file."""
        return cls(
            config=Path(plain["config"]),
            overrides=tuple(plain["overrides"]),
            output_dir=Path(plain["output"]["dir"]),
            output_name=plain["output"]["name"],
            stage=plain["stage"],
            time=plain["time"],
            finished=plain["finished"],
        )

    def plain(self) -> dict[str, Any]:
        """The values that the file holds."""
        return {
            "config": str(self.config),
            "overrides": list(self.overrides),
            "output": {"dir": str(self.output_dir), "name": self.output_name},
            "stage": self.stage,
            "time": self.time,
            "finished": self.finished,
        }

    @property
    def output(self) -> Path:
        """What its files' names start with."""
        return self.output_dir / self.output_name

    @property
    def arguments(self) -> str:
        """Configuration and overrides as on a command line."""
        return " ".join(["--config", str(self.config), *self.overrides])


@dataclass(frozen=True)
class OpenedChain:
    """A configuration that a stage is about to run.

    Attributes:
        stage: the subcommand.
        path: the configuration file, as given or as the chain noted it.
        overrides: all that apply, inherited ones first.
        config: composed and checked.
    """

    stage: str
    path: Path
    overrides: tuple[str, ...]
    config: Config

    def run(self, stage: Callable[..., T], **options: Any) -> T:
        """Run a stage function and note the chain: once its inputs are valid, and on success.

        Args:
            stage: takes the configuration, and `on_ready`, which it calls before its first step.
            options: of the stage function.
        """
        result = stage(self.config, on_ready=self.note, **options)
        self.note(finished=True)
        return result

    def note(self, finished: bool = False) -> None:
        """Make this the newest chain of the current folder; a warning where that is impossible."""
        if not is_main_process() or os.environ.get(NO_CHAINS):
            return
        output = self.config.output
        overrides = tuple(o for o in self.overrides if split_override(o)[0] not in NOT_INHERITED)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        chain = Chain(
            self.path, overrides, output.dir, output.name, self.stage, now, finished=finished
        )
        try:
            _append(chain)
        except KdpError as error:
            _warn(f"{error}; stages without --config will not find this chain")


def open_chain(stage: str, config: Path | None, overrides: Sequence[str]) -> OpenedChain:
    """The configuration of a stage: the given one, or that of the newest chain of this folder.

    An explicit configuration inherits nothing. Otherwise the newest chain's file is composed again
    with the overrides it was noted with; a new override of a key replaces the old one.

    Args:
        stage: the subcommand.
        config: the configuration file, None to continue the newest chain.
        overrides: KEY=VALUE of this command.

    Raises:
        KdpError: the configuration is invalid; or there is no chain, its file has gone, it lacks
            the section of this stage, an earlier stage did not finish, or one is running.
    """
    if config is not None:
        return OpenedChain(stage, config, tuple(overrides), load_config(config, overrides))
    chains = list_chains()
    if not chains:
        raise KdpError(f"kdp {stage} without --config: there is no chain in this folder; {START}")
    chain, *others = chains
    merged = merge_overrides(chain.overrides, overrides)
    try:
        composed = load_config(chain.config, merged)
    except KdpError as error:
        raise KdpError(f"cannot continue the chain {chain.output}: {error}; {START}") from error
    _check_sections(stage, chain, composed, others)
    _check_idle(chain, composed)
    _check_finished(stage, chain)
    log.info(f"Continuing the chain {chain.output}: {' '.join([str(chain.config), *merged])}")
    if others:
        names = join_names([f"{other.output} ({other.stage})" for other in others])
        log.info(f"Other chains in this folder (see kdp chains): {names}")
    return OpenedChain(stage, chain.config, merged, composed)


def list_chains() -> list[Chain]:
    """The chains of the current folder, the newest first.

    Raises:
        KdpError: `.kdp/chains.json` cannot be read.
    """
    try:
        content = read_json(CHAINS_FILE, ChainsContent)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KdpError(f"cannot read {CHAINS_FILE}: {error.strerror}") from error
    except KdpError as error:
        raise KdpError(f"{error}; delete it and give --config") from error
    return [Chain.from_plain(plain) for plain in content["chains"]][::-1]


def merge_overrides(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """Old overrides, without those of a key that a new one sets or deletes, then the new ones."""
    keys = {split_override(override)[0] for override in new}

    def replaced(override: str) -> bool:
        parts = split_override(override)[0].split(".")
        return any(".".join(parts[: n + 1]) in keys for n in range(len(parts)))

    return (*(override for override in old if not replaced(override)), *new)


def _check_sections(stage: str, chain: Chain, config: Config, others: Sequence[Chain]) -> None:
    missing = _missing_sections(stage, config)
    if missing:
        commands = [
            f"`kdp {stage} {other.arguments}`" for other in others if _can_run(stage, other)
        ]
        choice = join_names([f"`kdp {stage} --config FILE`", *commands])
        raise KdpError(
            f"the newest chain, {chain.output} ({chain.config}), lacks the section "
            f"`{missing[0]}` that kdp {stage} needs; run {choice}"
        )


def _missing_sections(stage: str, config: Config) -> list[str]:
    return [name for name in SECTIONS.get(stage, ()) if getattr(config, name) is None]


def _can_run(stage: str, chain: Chain) -> bool:
    """Whether a chain's configuration still composes and has what a stage needs."""
    try:
        return not _missing_sections(stage, load_config(chain.config, chain.overrides))
    except KdpError:
        return False


def _check_finished(stage: str, chain: Chain) -> None:
    """Refuse to continue from a stage that was stopped: its files are missing, or older."""
    stages = ORDER[: ORDER.index(stage)] if stage in ORDER else ()
    if not chain.finished and chain.stage in stages:
        raise KdpError(
            f"kdp {chain.stage} of the newest chain, {chain.output}, did not finish: continue with "
            f"`kdp {chain.stage} --resume`, or run `kdp {stage} {chain.arguments}`"
        )


def _check_idle(chain: Chain, config: Config) -> None:
    """Of several processes of one run only the main one asks: it holds the locks itself later."""
    held = next((path for path in locked_paths(config) if is_locked(path)), None)
    if held and is_main_process():
        raise KdpError(
            f"a stage of the chain {chain.output} is running (it is writing {held}); "
            "wait for it or stop it"
        )


def _append(chain: Chain) -> None:
    """Put a chain last, in the place of an earlier note of the same files."""
    with file_lock(CHAINS_FILE, LOCK_TIMEOUT):
        others = [other for other in list_chains()[::-1] if other.output != chain.output]
        plain = {"version": VERSION, "chains": [c.plain() for c in (*others, chain)]}
        write_atomic(CHAINS_FILE, json_text(plain).encode())


@cache
def _warn(message: str) -> None:
    """Warn once: a stage notes its chain twice."""
    log.warning(message)
