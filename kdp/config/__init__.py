"""The schema of a configuration file; `kdp.config.compose` reads one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from kdp.types import Arch

Decay = Annotated[float, Field(ge=0, lt=1)]
"""Of an average: the share of the old value that stays."""


class Section(BaseModel):
    """Typed, closed (an unknown key is an error) and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """A network of `kdp.models`, its arguments, and the file its training starts from, if any."""

    name: str
    args: dict[str, Any] = {}
    weights: Path | None = None

    @property
    def arch(self) -> Arch:
        """Name and arguments, as artifacts keep them."""
        return Arch(self.name, self.args)


class OutputConfig(Section):
    """Where the stages write: `{dir}/{name}_*.pth`, and logs and checkpoints in `{runs}`."""

    dir: Path = Path("weights")
    name: str
    runs: Path = Path("runs")


class SamplesConfig(Section):
    """Pairs of HR and LR pictures, pictures or sounds with classes, or pictures with objects.

    `embedded` needs nothing; `paired` needs `hr` and `lr`; `hr_only` needs `hr` and keeps the LR
    pictures it makes in `cache`; `folders` needs `folder`, which holds a folder for every class;
    `scenes` needs `folder` (or TAU24_PATH), which holds `meta.csv` and the list `split`;
    `voc` needs `folder` in VOC's layout, `yolo` a `folder` that is a data set's YAML file, and both
    take their `split` of it (train and val where not given).
    """

    kind: Literal["embedded", "paired", "hr_only", "folders", "scenes", "voc", "yolo"] = "embedded"
    split: str | None = None
    folder: Path | None = None
    hr: Path | None = None
    lr: Path | None = None
    lr_template: str | None = None
    cache: Path = Path(".cache/lr")


class AudioConfig(Section):
    """How sounds are changed in training.

    `roll` is in seconds, `mix_style` the probability of Freq-MixStyle, `mix_style_alpha` that of
    its Beta distribution, `frequency_mask` in mel bins at most.
    """

    roll: float = Field(0.1, ge=0, lt=1)
    mix_style: float = Field(0.4, ge=0, le=1)
    mix_style_alpha: PositiveFloat = 0.3
    frequency_mask: int = Field(48, ge=0, lt=256)


class DataConfig(SamplesConfig):
    """Training samples; `patch_size` is the side of an LR crop, in pixels.

    A detector's sample is made of four pictures with probability `mosaic`, and never in the last
    `close_mosaic` epochs.
    """

    audio: AudioConfig = AudioConfig()
    patch_size: PositiveInt = 54
    mosaic: float = Field(1.0, ge=0, le=1)
    close_mosaic: int = Field(0, ge=0)
    augment: bool = True
    workers: int = Field(0, ge=0)


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


class CalibrationConfig(Section):
    """The patches importance is measured on."""

    patches: PositiveInt = 8
    patch_size: PositiveInt = 28


class PruneConfig(Section):
    """What is scored, how, and what the search may not do.

    `options` go to the criterion. `scores` is the file that keeps what it measured, where it is not
    to lie beside the other outputs. `min_units` and `round_to` are per kind of group: what a group
    keeps at least, and the multiple it keeps (`round_to` never forces below `min_units`).
    """

    criterion: str = "optin"
    scores: Path | None = None
    options: dict[str, Any] = {}
    calibration: CalibrationConfig = CalibrationConfig()
    min_units: dict[str, NonNegativeInt] = {}
    round_to: dict[str, PositiveInt] = {}
    kinds: list[str] | None = None


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
    names are not the teacher's. With `targets`, what teachers say is read from that folder, which
    `kdp teach` wrote. The last of the losses gives the fine-tuned network its file name.
    """

    teacher: TeacherConfig | None = None
    targets: Path | None = None
    task_weight: float = Field(1.0, ge=0)
    losses: dict[str, LossConfig] = Field(min_length=1)
    taps: list[str] | dict[str, str] | None = None


class SparsityConfig(Section):
    """A loss on the gates: `l1`, or `group_lasso` that empties whole groups; see `dynamic`."""

    kind: Literal["l1", "group_lasso"] = "l1"
    weight: float = Field(ge=0)


class DynamicConfig(Section):
    """Pruning while training, by learnable gates, down to `mac_constraint`.

    From `start_step` on, every `period` steps, the units within the budget of that moment are
    chosen anew; the budget falls along a cubic ramp and is `mac_constraint` from `end_step` on.
    While it falls a removed unit may come back, unless `regrowth` is off.
    """

    criterion: str = "gate"
    start_step: int = Field(0, ge=0)
    end_step: PositiveInt
    period: PositiveInt = 10
    regrowth: bool = True
    loss: SparsityConfig | None = None

    @model_validator(mode="after")
    def _ends_later(self) -> DynamicConfig:
        if self.end_step <= self.start_step:
            raise ValueError(f"end_step ({self.end_step}) must be after start_step")
        return self


class RoundConfig(Section):
    """One round of progressive pruning: the share of every group's units that goes, of those that
    are left, and the steps of training afterwards."""

    pruning_ratio: float = Field(gt=0, lt=1)
    steps: PositiveInt


class LimitsConfig(Section):
    """What a network may take once it is deployed: `bytes` of parameters at so many `bits` each,
    and `macs` of one input of the task."""

    bytes: PositiveInt | None = None
    bits: Literal[8, 16, 32] = 16
    macs: PositiveInt | None = None


class MeasureConfig(Section):
    """Protocol of `compare` and of the budget; sizes are (height, width) of the input.

    Where a size is not given the task has one: 64x64 and 128x128 for super-resolution, the
    network's own for a classifier.
    """

    input_size: tuple[PositiveInt, PositiveInt] | None = None
    latency_size: tuple[PositiveInt, PositiveInt] | None = None
    latency_runs: PositiveInt = 7
    warmup_runs: int = Field(2, ge=0)


class TileConfig(Section):
    """Large pictures are computed in overlapping tiles of `size` input pixels."""

    size: PositiveInt = 256
    overlap: PositiveInt = 32

    @model_validator(mode="after")
    def _moves_on(self) -> TileConfig:
        if self.overlap >= self.size:
            raise ValueError(f"overlap ({self.overlap}) must be less than size ({self.size})")
        return self


class DetectConfig(Section):
    """Which boxes are shown: from a probability of `confidence` on, and of two of a class that
    overlap by an IoU of `iou` the surer one."""

    confidence: float = Field(0.25, gt=0, lt=1)
    iou: float = Field(0.45, gt=0, lt=1)


class ExperimentsConfig(Section):
    """Keep every result under `folder`, beside what made it; `notes` go into its table."""

    folder: Path = Path("experiments")
    notes: str = ""


class Config(Section):
    """A whole configuration file; each subcommand reads the sections it needs.

    The budget of pruning is `mac_constraint`, the share of all MACs that stays, or
    `pruning_ratio`, the share of every group's units that goes; or `rounds`, which prune, fine-tune
    and rebuild again and again.
    """

    seed: int = Field(0, ge=0)
    device: str = "auto"
    output: OutputConfig
    model: ModelConfig | None = None
    teacher: Path | None = None
    data: DataConfig = DataConfig()
    evaluation: dict[str, SamplesConfig] = {"embedded": SamplesConfig()}
    tiles: TileConfig = TileConfig()
    detect: DetectConfig = DetectConfig()
    measure: MeasureConfig = MeasureConfig()
    mac_constraint: float | None = Field(None, gt=0, lt=1)
    pruning_ratio: float | None = Field(None, gt=0, lt=1)
    prune: PruneConfig = PruneConfig()
    train: TrainConfig | None = None
    finetune: TrainConfig | None = None
    distill: DistillConfig | None = None
    dynamic: DynamicConfig | None = None
    experiments: ExperimentsConfig | None = None
    rounds: list[RoundConfig] | None = Field(None, min_length=1)
    limits: LimitsConfig | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> Config:
        if self.mac_constraint is not None and self.pruning_ratio is not None:
            raise ValueError("give mac_constraint or pruning_ratio, and null for the other")
        if self.rounds and (self.mac_constraint or self.pruning_ratio or self.dynamic):
            raise ValueError("rounds have their own pruning_ratio, and no dynamic beside them")
        return self

    def plain(self) -> dict[str, Any]:
        """The configuration in plain values, as records keep it."""
        return self.model_dump(mode="json")
