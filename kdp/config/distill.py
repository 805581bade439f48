"""What a student learns from its teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from kdp.config.base import Count, Section
from kdp.config.epochs import Epochs


class PhaseConfig(Section):
    """One phase of a piecewise schedule: the factor changes linearly."""

    until: float | None = Field(None, gt=0, le=1)
    """End of the phase, as a share of the run (0..1); this, until_step or until_epoch is
    required."""
    until_step: Count | None = None
    """The same as a step."""
    until_epoch: Epochs | None = None
    """The same as an epoch."""
    start: float = Field(ge=0)
    """Factor at the start of the phase."""
    end: float = Field(ge=0)
    """Factor at the end of the phase."""

    @model_validator(mode="after")
    def _one_end(self) -> PhaseConfig:
        if len(self.given_end) != 1:
            raise ValueError("give one of until, until_step and until_epoch")
        return self

    @model_serializer(mode="wrap")
    def _plain(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not given, as earlier versions wrote it: checkpoints are compared."""
        return {key: value for key, value in serialize(self).items() if value is not None}

    @property
    def given_end(self) -> dict[str, float]:
        """The end as it is given, by key."""
        ends = ("until", "until_step", "until_epoch")
        return {key: getattr(self, key) for key in ends if getattr(self, key) is not None}

    def share(self, steps: int, epoch: int) -> float:
        """End of the phase as a share of a run; more than 1 where the run ends before it.

        Args:
            steps: of the run.
            epoch: steps of an epoch.
        """
        if self.until is not None:
            return self.until
        return (self.until_step or (self.until_epoch or 0) * epoch) / steps


class LossConfig(Section):
    """One distillation loss."""

    weight: float = Field(1.0, ge=0)
    """Weight of the loss in the total."""
    schedule: Literal["constant", "linear", "cosine", "piecewise"] = "constant"
    """How the weight changes over the run: constant, falling from 1 to 0 (linear, cosine), or
    linear in each phase (piecewise)."""
    phases: list[PhaseConfig] | None = Field(None, min_length=1)
    """Phases of the schedule piecewise, the last of which may end with the run; the three of
    attention transfer if not given."""
    options: dict[str, Any] = {}
    """Keyword arguments of the loss, such as the temperature of logits."""
    align: bool = False
    """Compare features through a learned 1x1 convolution and a normalisation, even where their
    widths agree."""

    @model_validator(mode="after")
    def _phases_follow(self) -> LossConfig:
        given = [phase.given_end for phase in self.phases or ()]
        ends = [end for phase in given for end in phase.values()]
        if len({key for phase in given for key in phase}) > 1:
            raise ValueError("the ends of phases must be of one kind: shares, steps or epochs")
        if self.phases is not None and self.schedule != "piecewise":
            raise ValueError("phases belong to the schedule piecewise")
        if ends != sorted(set(ends)):
            raise ValueError("the ends of phases must grow")
        if given and "until" in given[0] and ends[-1] != 1:
            raise ValueError("the `until` of phases must grow and end at 1")
        return self

    def in_shares(self, steps: int, epoch: int) -> LossConfig:
        """The section with the ends of phases as shares of a run; see `PhaseConfig.share`."""
        if self.phases is None:
            return self
        phases = [
            PhaseConfig.model_construct(
                until=phase.share(steps, epoch), start=phase.start, end=phase.end
            )
            for phase in self.phases
        ]
        return self.model_copy(update={"phases": phases})


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


class _ShortForm(Section):
    alpha: float = Field(0.5, ge=0, le=1)
    temperature: PositiveFloat = 4.0


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
    process. If not given, the task's own, which follows the common trainers of its kind."""
    losses: dict[str, LossConfig] = Field(min_length=1)
    """Distillation losses by name: output, feature, feature_l2, fakd, logits,
    attention_transfer, score_weighted."""
    alpha: float | None = Field(None, ge=0, le=1)
    """Short form for `logits` only: weight of the ground truth; the teachers get the rest. 0.5 if
    only `temperature` is given."""
    temperature: PositiveFloat | None = None
    """Short form: temperature of the loss `logits`; 4 if only `alpha` is given."""
    taps: list[str] | dict[str, str] | None = None
    """Modules whose features are compared; those of the task if not given. A mapping from student
    names to teacher names where these differ."""

    def in_shares(self, steps: int, epoch: int) -> DistillConfig:
        """The section with the ends of phases as shares of a run; see `PhaseConfig.share`."""
        losses = {name: loss.in_shares(steps, epoch) for name, loss in self.losses.items()}
        return self.model_copy(update={"losses": losses})

    @model_validator(mode="before")
    @classmethod
    def _expand_short_form(cls, value: Any) -> Any:
        """`alpha` and `temperature` as the weights and losses that they stand for."""
        if not isinstance(value, dict):
            return value
        short = {key: value[key] for key in ("alpha", "temperature") if value.get(key) is not None}
        if not short:
            return value
        long = [key for key in ("task_weight", "losses") if key in value]
        if long:
            raise ValueError(
                f"{' and '.join(short)} stand for task_weight and losses.logits: leave out "
                f"{' and '.join(long)}"
            )
        given = _ShortForm.model_validate(short)
        options = {"temperature": given.temperature}
        kept = {key: content for key, content in value.items() if key not in short}
        return {
            **kept,
            "task_weight": given.alpha,
            "losses": {"logits": {"weight": 1 - given.alpha, "options": options}},
        }
