"""Optimisation, of `train` and of `finetune`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kdp.config.base import Decay, Section


class TrainConfig(Section):
    """Optimisation.

    The optimizer `adam` is AdamW where weight_decay > 0; `sgd` has Nesterov's `momentum`. A
    validation at which the best is `patience` steps old ends the training.
    """

    steps: PositiveInt
    batch_size: PositiveInt = 4
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: PositiveFloat = 2e-4
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    momentum: Decay = 0.937
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "multistep", "trapezoid"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    milestones: list[PositiveInt] = []
    decay_steps: PositiveInt | None = None
    clip_norm: PositiveFloat | None = None
    ema_decay: Decay = 0.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    validate_every: PositiveInt = 500
    patience: PositiveInt | None = None
    checkpoint_every: PositiveInt = 200
    log_every: PositiveInt = 10
    trackers: list[Literal["tensorboard", "wandb"]] = []

    @model_validator(mode="after")
    def _has_milestones(self) -> TrainConfig:
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("the schedule multistep needs milestones, the steps that halve the lr")
        return self
