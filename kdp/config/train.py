"""Optimisation, of `train` and of `finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

from kdp.config.base import Count, CountOrZero, Decay, Samples
from kdp.config.epochs import Epochs, EpochsOrZero, LengthSection, epoch_steps


class TrainConfig(LengthSection):
    """Optimisation; `train` and `finetune` have the same keys.

    Every length is given in steps or in epochs; an epoch is ceil(samples / batch_size) steps.
    """

    epoch_keys: ClassVar[Mapping[str, str]] = {
        "steps": "epochs",
        "warmup_steps": "warmup_epochs",
        "milestones": "milestone_epochs",
        "decay_steps": "decay_epochs",
        "validate_every": "validate_every_epochs",
        "patience": "patience_epochs",
        "checkpoint_every": "checkpoint_every_epochs",
        "log_every": "log_every_epochs",
    }
    required_lengths: ClassVar[tuple[str, ...]] = ("steps",)

    steps: Count | None = None
    """Number of optimizer steps; this or epochs is required."""
    epochs: Epochs | None = None
    """The same in epochs."""
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
    warmup_steps: CountOrZero | None = 0
    """Steps of linear warm-up at the start, for every schedule."""
    warmup_epochs: EpochsOrZero | None = None
    """The same in epochs."""
    milestones: list[Count] | None = []
    """Steps at which the schedule multistep halves the learning rate."""
    milestone_epochs: list[Epochs] | None = None
    """The same in epochs."""
    decay_steps: Count | None = None
    """Length of the linear decay of the schedule trapezoid; a fifth of the steps if not given."""
    decay_epochs: Epochs | None = None
    """The same in epochs."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of the gradient; no clipping if not given."""
    ema_decay: Decay = 0.0
    """Decay of the exponential moving average of the weights, which is validated and saved; 0 turns
    it off."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Number format of the forward and backward pass; weights stay in fp32."""
    validate_every: Count | None = 500
    """Steps between validations; the best network of all validations is kept."""
    validate_every_epochs: Epochs | None = None
    """The same in epochs."""
    patience: Count | None = None
    """Early stopping: stop if validation has not improved for this many steps."""
    patience_epochs: Epochs | None = None
    """The same in epochs."""
    checkpoint_every: Count | None = 200
    """Steps between checkpoints, which `--resume` continues from."""
    checkpoint_every_epochs: Epochs | None = None
    """The same in epochs."""
    log_every: Count | None = 10
    """Steps between log lines, and between points of the curves."""
    log_every_epochs: Epochs | None = None
    """The same in epochs."""
    trackers: list[Literal["tensorboard", "wandb"]] = []
    """Experiment trackers that also receive the curves, in addition to the JSONL and CSV files."""

    @model_validator(mode="after")
    def _has_milestones(self) -> TrainConfig:
        if self.schedule == "multistep" and not (self.milestones or self.milestone_epochs):
            raise ValueError("the schedule multistep needs milestones, the steps that halve the lr")
        return self

    def in_steps(self, samples: int | None = None) -> TrainSettings:
        """The section with every length in steps; those in epochs are kept beside them.

        Args:
            samples: number of training samples; None where no length is given in epochs.

        Raises:
            KdpError: a length is longer than any training.
        """
        lengths = self.lengths(None if samples is None else epoch_steps(samples, self.batch_size))
        return TrainSettings.model_construct(**{**dict(self), **lengths})


class TrainSettings(TrainConfig):
    """The section as the training loop reads it: with every length in steps."""

    steps: Count
    warmup_steps: CountOrZero = 0
    milestones: list[Count] = []
    validate_every: Count = 500
    checkpoint_every: Count = 200
    log_every: Count = 10
