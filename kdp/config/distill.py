"""What a student learns from its teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

from kdp.config.base import Section


class PhaseConfig(Section):
    """One phase of a piecewise schedule: the factor changes linearly."""

    until: float = Field(gt=0, le=1)
    """End of the phase, as a share of the run (0..1)."""
    start: float = Field(ge=0)
    """Factor at the start of the phase."""
    end: float = Field(ge=0)
    """Factor at the end of the phase."""


class LossConfig(Section):
    """One distillation loss."""

    weight: float = Field(1.0, ge=0)
    """Weight of the loss in the total."""
    schedule: Literal["constant", "linear", "cosine", "piecewise"] = "constant"
    """How the weight changes over the run: constant, falling from 1 to 0 (linear, cosine), or
    linear in each phase (piecewise)."""
    phases: list[PhaseConfig] | None = Field(None, min_length=1)
    """Phases of the schedule piecewise; the three of attention transfer if not given."""
    options: dict[str, Any] = {}
    """Keyword arguments of the loss, such as the temperature of logits."""
    align: bool = False
    """Compare features through a learned 1x1 convolution and a normalisation, even where their
    widths agree."""

    @model_validator(mode="after")
    def _phases_follow(self) -> LossConfig:
        ends = [phase.until for phase in self.phases or ()]
        if self.phases is not None and self.schedule != "piecewise":
            raise ValueError("phases belong to the schedule piecewise")
        if ends and (ends != sorted(set(ends)) or ends[-1] != 1):
            raise ValueError("the `until` of phases must grow and end at 1")
        return self


PLAN_SUFFIXES = (".yaml", ".yml")
"""Endings of names that stand for a network without weights."""


class TeacherConfig(Section):
    """One or several teachers; outputs are averaged, features compared with those of each."""

    weights: Path | list[Path]
    """File of the teacher, or a list of files. The name of a description without weights (.yaml)
    stands for an untrained network: a dry run."""
    shares: list[PositiveFloat] | None = None
    """Weights of the teachers in the average; equal if not given."""

    @property
    def paths(self) -> list[Path]:
        """The files, one or several."""
        return [self.weights] if isinstance(self.weights, Path) else self.weights

    @property
    def files(self) -> list[Path]:
        """Those that hold weights."""
        return [path for path in self.paths if path.suffix not in PLAN_SUFFIXES]

    @model_validator(mode="after")
    def _a_share_each(self) -> TeacherConfig:
        if not self.paths:
            raise ValueError("weights names no file")
        if self.shares is not None and len(self.shares) != len(self.paths):
            raise ValueError(f"{len(self.shares)} shares for {len(self.paths)} teachers")
        return self


class DistillConfig(Section):
    """Knowledge distillation: what a student learns from its teachers.

    The last of the losses gives the fine-tuned network its file name.
    """

    renamed_keys: ClassVar[dict[str, str]] = {"targets": "target_cache"}

    teacher: TeacherConfig | None = None
    """The teachers; the file of the key `teacher` if not given."""
    target_cache: Path | None = None
    """Folder of teacher outputs that `kdp cache-targets` wrote; read instead of running the
    teachers."""
    task_weight: float = Field(1.0, ge=0)
    """Weight of the loss against the ground truth."""
    task_reduction: Literal["mean", "sum"] | None = None
    """What the weights of the losses are relative to: the loss against the ground truth averaged
    over the batch (mean), or summed over it (sum), which divides them by the batch size of a
    process. If not given, that of the family: sum for detection, as in the trainer of Ultralytics,
    mean for the others."""
    losses: dict[str, LossConfig] = Field(min_length=1)
    """Distillation losses by name: output, feature, feature_l2, fakd, logits,
    attention_transfer, score_weighted."""
    taps: list[str] | dict[str, str] | None = None
    """Modules whose features are compared; those of the task if not given. A mapping from student
    names to teacher names where these differ."""
