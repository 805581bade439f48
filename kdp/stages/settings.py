"""Settings that decide a result: which they are, and where two configurations differ in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from kdp.config import Config, TrainConfig
from kdp.serialize import flattened

Settings = dict[str, Any]
"""Values by dotted key, as in `prune.calibration.patches`."""

MASKS = (
    "model.name",
    "model.args",
    "mac_constraint",
    "pruning_ratio",
    "prune",
    "dynamic",
    "measure.input_size",
    "seed",
)
"""Keys that decide the masks, with all keys below them."""
TRAINING = ("model.name", "model.args", "data", "evaluation", "distill", "dynamic", "seed")
"""Keys that decide a training, beside its own section; `evaluation` picks the best weights."""
NOT_DECISIVE = {
    "prune.scores",
    "data.workers",
    "data.cache",
    "distill.target_cache",
    "distill.teacher.weights",
}
"""Paths of files that are compared by content, and what changes the speed alone."""
TASK_REDUCTION = "distill.task_reduction"
"""Key whose default depends on the family."""
AT_END = ".at_end"
"""End of the keys that keep an evaluation set for the end of a training."""
FREE_LENGTHS = ("steps", "validate_every", "checkpoint_every", "log_every")
FREE = {
    *FREE_LENGTHS,
    *(TrainConfig.epoch_keys[key] for key in FREE_LENGTHS),
    "trackers",
}
"""Keys of `train` and `finetune` that may change on resuming."""


def masks_settings(config: Mapping[str, Any]) -> Settings:
    """The settings that decide the masks, of a configuration in plain values."""
    return _select(config, MASKS)


def training_settings(config: Mapping[str, Any], section: str) -> Settings:
    """The settings that decide a training, but for its number of steps.

    Args:
        config: a configuration in plain values.
        section: `train` or `finetune`.
    """
    pruned = section == "finetune" or config.get("dynamic") is not None
    settings = _select(config, (*TRAINING, *(MASKS if pruned else ()), section))
    settings = {key: value for key, value in settings.items() if key not in _free(section)}
    if settings.get(TASK_REDUCTION) == "mean":  # as all runs of earlier versions had it
        del settings[TASK_REDUCTION]
    # Earlier versions measured every set at every validation.
    return {k: v for k, v in settings.items() if not (k.endswith(AT_END) and v is False)}


def difference(before: Settings, now: Settings) -> str | None:
    """The first setting that is not the same, with both values; None if all are."""
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            return f"{key}={before.get(key)}, now {key}={now.get(key)}"
    return None


def _select(config: Mapping[str, Any], keys: Collection[str]) -> Settings:
    flat = flatten(_with_defaults(config))
    starts = tuple(f"{key}." for key in keys)
    return {
        key: value
        for key, value in flat.items()
        if key not in NOT_DECISIVE and f"{key}.".startswith(starts)
    }


def _free(section: str) -> set[str]:
    return {f"{section}.{key}" for key in FREE}


def _with_defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """So that a default counts the same whether it is spelled out or not."""
    with suppress(ValidationError):  # a configuration of another version is compared as it is
        return Config.model_validate(dict(config)).plain()
    return config


def flatten(plain: Mapping[str, Any]) -> Settings:
    """Values by dotted key; what is None or empty is left out, as if it was not given."""
    return {key: value for key, value in flattened(plain).items() if value not in (None, {})}
