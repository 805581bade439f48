"""The files of the chain: where one stage writes is where the next one reads."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kdp.config import Config, DistillConfig
from kdp.errors import KdpError, join_names
from kdp.files import input_path, why_no_file
from kdp.log import log

PLAIN = re.compile(r"(?!-)[\w./+,@-]+")
"""Paths that mean themselves in a Makefile and in a shell."""
LABELS = {"output": "output_kd", "feature": "feature_kd"}
"""What a loss is called in a file name, where not by its own name."""


def do_nothing() -> None:
    """The default for callbacks that a stage calls once its inputs are valid."""


@dataclass(frozen=True)
class ChainPaths:
    """The files of one configuration.

    Attributes:
        pruned: full size, removed units zeroed.
        masks: what `prune` keeps.
        scores: importance of every unit, by the configured criterion.
        recovered: refitted without training, removed units still zero.
        finetuned: fine-tuned, removed units still zero; named by the distillation loss.
        checkpoint: what an interrupted fine-tuning resumes from.
        trained: what `train` writes, the weights of the best validation.
        last: the weights after its last step.
        training: what an interrupted training resumes from.
        source: what `rebuild` cuts: the fine-tuned network, or the one pruned while it trained.
        rebuilt: physically smaller.
        table: the comparison, as Markdown.
        rounds: how far pruning in rounds has come.
    """

    pruned: Path
    masks: Path
    scores: Path
    recovered: Path
    finetuned: Path
    checkpoint: Path
    trained: Path
    last: Path
    training: Path
    source: Path
    rebuilt: Path
    table: Path
    rounds: Path


def chain_paths(config: Config) -> ChainPaths:
    """Where the stages of a configuration read and write."""
    output, label = config.output, _loss_label(config.distill)

    def named(what: str) -> Path:
        return output.dir / f"{output.name}_{what}.pth"

    def in_runs(stage: str, file: str) -> Path:
        return output.runs / f"{output.name}_{stage}" / file

    trained, finetuned = output.dir / f"{output.name}.pth", named(f"finetuned_{label}")
    return ChainPaths(
        pruned=named("pruned"),
        masks=named("pruning_masks"),
        scores=config.prune.scores or named(f"scores_{config.prune.criterion}"),
        recovered=named("recovered"),
        finetuned=finetuned,
        checkpoint=in_runs(f"finetune_{label}", "checkpoint.pth"),
        trained=trained,
        last=named("last"),
        training=in_runs("train", "checkpoint.pth"),
        source=finetuned if prunes(config) and not config.dynamic else trained,
        rebuilt=named("rebuilt"),
        table=output.runs / output.name / "compare.md",
        rounds=in_runs("rounds", "rounds.json"),
    )


def check_made(path: Path, stage: str) -> None:
    """Make sure that an earlier stage has written a file.

    Raises:
        KdpError: it has not.
    """
    if not path.exists():
        raise KdpError(
            f"{path} {why_no_file(path)}: run `kdp {stage}` with this configuration first"
        )


def check_input(config: Config, key: str, path: Path) -> None:
    """Make sure that a network that a configuration names is there.

    Args:
        config: the whole configuration.
        key: that names the network.
        path: its value.

    Raises:
        KdpError: it is not there; the message has the key.
    """
    if input_path(path).exists():
        return
    where = " (it is looked for in output.dir)" if path.parent == config.output.dir else ""
    raise KdpError(
        f"{path} {why_no_file(path)}{where}: write it first, or name the file with {key}=FILE"
    )


def prunes(config: Config) -> bool:
    """Whether the chain of a configuration removes anything."""
    return config.mac_constraint is not None or config.pruning_ratio is not None


def fine_tunes(config: Config) -> bool:
    """Whether the section `finetune`, if there is one, is for this configuration.

    A file that prunes nothing may have it, too: for others that include it.
    """
    return prunes(config) or config.teacher is not None


def targets_folder(config: Config) -> Path:
    """Where `kdp cache-targets` writes."""
    if config.distill and config.distill.target_cache:
        return config.distill.target_cache
    return config.output.runs / f"{config.output.name}_targets"


def locked_paths(config: Config) -> list[Path]:
    """What the stages of a configuration hold a lock on while they run."""
    paths = chain_paths(config)
    files = [paths.masks, paths.recovered, paths.trained, paths.finetuned, paths.rebuilt]
    return [
        *files,
        paths.rounds,
        paths.training.parent,
        paths.checkpoint.parent,
        targets_folder(config),
    ]


def make_variables(config: Config, files: Sequence[Path] = ()) -> str:
    """The paths as assignments that a Makefile includes.

    Make compares times, and a file that is dated in the future would be new at every look. Such a
    file is listed apart, until its date has passed or somebody has touched it.

    Args:
        config: of the chain.
        files: that it was composed of.

    Raises:
        KdpError: a path has a character that Make or a shell would interpret.
    """
    chain = chain_paths(config)
    future = [path for path in files if path.stat().st_mtime > time.time()]
    if future:
        names = join_names([str(path) for path in future])
        log.warning(f"dated in the future, so make cannot see when they change: {names} (touch it)")
    sources = config.distill.teacher if config.distill else None
    teachers = sources.files if sources else [config.teacher] if config.teacher else []
    steps = [chain.trained] if config.dynamic else [chain.pruned, chain.finetuned]
    lists = {
        "configs": [path for path in files if path not in future],
        "future": future,
        "teacher": teachers,
        "compared": [*teachers, *steps, chain.rebuilt],
        **{name: [path] for name, path in asdict(chain).items()},
    }
    for path in (path for paths in lists.values() for path in paths):
        if not PLAIN.fullmatch(str(path)):
            raise KdpError(
                f"{str(path)!r} cannot be a target of make: use letters, digits and ./_+,@- only"
            )
        if path.name == str(path) and not path.suffix:  # it could be a goal, such as `clean`
            raise KdpError(f"{str(path)!r} cannot be a target of make: give it an ending")
    return "".join(f"{name.upper()} := {' '.join(map(str, v))}\n" for name, v in lists.items())


def _loss_label(distill: DistillConfig | None) -> str:
    """The name of a fine-tuning: of its last distillation loss, or `plain` without any."""
    if distill is None:
        return "plain"
    last = list(distill.losses)[-1]
    return LABELS.get(last, last)
