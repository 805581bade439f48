"""The files of the chain: where one stage writes is where the next one reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdp.config import Config

LABELS = {"output": "output_kd", "feature": "feature_kd"}
"""What a loss is called in a file name, where not by its own name."""


@dataclass(frozen=True)
class ChainPaths:
    """The artifacts of one configuration.

    Attributes:
        pruned: full size, removed units zeroed.
        masks: what `prune` keeps.
        scores: importance of every unit, by the configured criterion.
        finetuned: fine-tuned, removed units still zero; named by the distillation loss.
        rebuilt: physically smaller.
    """

    pruned: Path
    masks: Path
    scores: Path
    finetuned: Path
    rebuilt: Path


def chain_paths(config: Config) -> ChainPaths:
    """Where the stages of a configuration read and write."""

    def named(what: str) -> Path:
        return config.output.dir / f"{config.output.name}_{what}.pth"

    return ChainPaths(
        pruned=named("pruned"),
        masks=named("pruning_masks"),
        scores=named(f"scores_{config.prune.criterion}"),
        finetuned=named(f"finetuned_{loss_label(config)}"),
        rebuilt=named("rebuilt"),
    )


def loss_label(config: Config) -> str:
    """The name of a fine-tuning: of its last distillation loss, or `plain` without any."""
    if config.distill is None:
        return "plain"
    last = list(config.distill.losses)[-1]
    return LABELS.get(last, last)
