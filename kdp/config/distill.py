"""What a student learns from its teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

from kdp.config.base import Section


class PhaseConfig(Section):
    """A piece of a schedule: linear from `start` to `end`, `until` this part of the run (0..1)."""

    until: float = Field(gt=0, le=1)
    start: float = Field(ge=0)
    end: float = Field(ge=0)


class LossConfig(Section):
    """Weight of one distillation loss, its schedule over the run, and its own options.

    A loss that compares features of any width gets the student's through a learnt 1x1 convolution
    and a normalisation where `align` asks for it; one that needs equal widths, where they differ.
    `phases` are those of the schedule `piecewise` (attention transfer's three if not given).
    """

    weight: float = Field(1.0, ge=0)
    schedule: Literal["constant", "linear", "cosine", "piecewise"] = "constant"
    phases: list[PhaseConfig] | None = Field(None, min_length=1)
    options: dict[str, Any] = {}
    align: bool = False

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
    """One or several networks to learn from.

    Outputs are averaged, features compared with those of each; `shares` weights the teachers
    (equal where not given). A plan of Ultralytics, such as `yolo11m.yaml`, stands for a new
    network: a dry run before there is a teacher.
    """

    weights: Path | list[Path]
    shares: list[PositiveFloat] | None = None

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
    """What is learnt from the teacher, and where; `task_weight` is that of the ground truth.

    `teacher` is the file of the whole configuration where not given. `taps` names the modules
    whose features are compared (the task's own where not given); a mapping where the student's
    names are not the teacher's. With `target_cache`, the teachers' outputs are read from that
    folder, which `kdp cache-targets` wrote. The last of the losses gives the fine-tuned network its
    file name.
    """

    renamed_keys: ClassVar[dict[str, str]] = {"targets": "target_cache"}

    teacher: TeacherConfig | None = None
    target_cache: Path | None = None
    task_weight: float = Field(1.0, ge=0)
    losses: dict[str, LossConfig] = Field(min_length=1)
    taps: list[str] | dict[str, str] | None = None
