"""Optimisation, of `train` and of `finetune`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from kdp.config.base import Count, CountOrZero, Decay, Samples, Section


class TrainConfig(Section):
    """Optimisation; `train` and `finetune` have the same keys."""

    steps: Count
    """Number of optimizer steps."""
    batch_size: Samples = 4
    """Samples per step, over all processes."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam (AdamW if weight_decay > 0), or SGD with Nesterov momentum."""
    lr: PositiveFloat = 2e-4
    """Highest learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Decay rates of Adam's first and second moments."""
    momentum: Decay = 0.937
    """Nesterov momentum of SGD."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay, decoupled in AdamW; biases and normalisation parameters have none."""
    schedule: Literal["constant", "cosine", "multistep", "trapezoid"] = "cosine"
    """Learning rate schedule: constant, cosine to zero, halved at every milestone, or constant with
    a linear decay to zero at the end (trapezoid)."""
    warmup_steps: CountOrZero = 0
    """Steps of linear warm-up at the start, for every schedule."""
    milestones: list[Count] = []
    """Steps at which the schedule multistep halves the learning rate."""
    decay_steps: Count | None = None
    """Length of the linear decay of the schedule trapezoid; a fifth of the steps if not given."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of the gradient; no clipping if not given."""
    ema_decay: Decay = 0.0
    """Decay of the exponential moving average of the weights, which is validated and saved; 0 turns
    it off."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Number format of the forward and backward pass; weights stay in fp32."""
    validate_every: Count = 500
    """Steps between validations; the best network of all validations is kept."""
    patience: Count | None = None
    """Early stopping: end the training if the best validation is this many steps old."""
    checkpoint_every: Count = 200
    """Steps between checkpoints, which `--resume` continues from."""
    log_every: Count = 10
    """Steps between two lines of the log and points of the curves."""
    trackers: list[Literal["tensorboard", "wandb"]] = []
    """Experiment trackers that get the curves too, beside the JSONL and CSV files."""

    @model_validator(mode="after")
    def _has_milestones(self) -> TrainConfig:
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("the schedule multistep needs milestones, the steps that halve the lr")
        return self
