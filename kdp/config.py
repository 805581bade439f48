"""The schema of a configuration file, and reading one."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from kdp.errors import KdpError

# KEY=VALUE, +KEY=VALUE, ++KEY=VALUE, ~KEY or ~KEY=VALUE
_OVERRIDE = re.compile(r"(\+{0,2}[^\s=+~]+=.*)|(~[^\s=]+(=.*)?)", re.DOTALL)


class Section(BaseModel):
    """Typed, closed (an unknown key is an error) and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """A network of `kdp.models`, its arguments, and the file its training starts from, if any."""

    name: str
    args: dict[str, Any] = {}
    weights: Path | None = None

    @property
    def arch(self) -> dict[str, Any]:
        """Name and arguments, as artifacts keep them."""
        return {"name": self.name, "args": self.args}


class OutputConfig(Section):
    """Where the stages write: `{dir}/{name}_*.pth`, and logs and checkpoints in `{runs}`."""

    dir: Path = Path("weights")
    name: str
    runs: Path = Path("runs")


class PicturesConfig(Section):
    """Pairs of HR and LR pictures.

    `embedded` needs nothing; `paired` needs `hr` and `lr`; `hr_only` needs `hr` and keeps the LR
    pictures it makes in `cache`.
    """

    kind: Literal["embedded", "paired", "hr_only"] = "embedded"
    hr: Path | None = None
    lr: Path | None = None
    lr_template: str | None = None
    cache: Path = Path(".cache/lr")


class DataConfig(PicturesConfig):
    """Training patches; `patch_size` is the side of the LR crop in pixels."""

    patch_size: PositiveInt = 54
    augment: bool = True
    workers: int = Field(0, ge=0)


class TrainConfig(Section):
    """Optimisation; the optimizer is Adam (AdamW where weight_decay > 0)."""

    steps: PositiveInt
    batch_size: PositiveInt = 4
    lr: PositiveFloat = 2e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine", "multistep", "trapezoid"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    milestones: list[PositiveInt] = []
    decay_steps: PositiveInt | None = None
    clip_norm: PositiveFloat | None = None
    ema_decay: float = Field(0.0, ge=0, lt=1)
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 200
    log_every: PositiveInt = 10
    trackers: list[Literal["tensorboard", "wandb"]] = []


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
    min_units: dict[str, int] = {}
    round_to: dict[str, PositiveInt] = {}
    kinds: list[str] | None = None


class PhaseConfig(Section):
    """A piece of a schedule: linear from `start` to `end`, `until` this part of the run (0..1)."""

    until: float = Field(gt=0, le=1)
    start: float = Field(ge=0)
    end: float = Field(ge=0)


class LossConfig(Section):
    """Weight of one distillation loss, its schedule over the run, and its own options.

    `phases` are those of the schedule `piecewise` (the three of attention transfer if not given).
    """

    weight: float = Field(1.0, ge=0)
    schedule: Literal["constant", "linear", "cosine", "piecewise"] = "constant"
    phases: list[PhaseConfig] | None = None
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _phases_follow(self) -> LossConfig:
        ends = [phase.until for phase in self.phases or ()]
        if self.phases is not None and self.schedule != "piecewise":
            raise ValueError("phases belong to the schedule piecewise")
        if ends and (ends != sorted(set(ends)) or ends[-1] != 1):
            raise ValueError("the `until` of phases must grow and end at 1")
        return self


class TeacherConfig(Section):
    """One or several networks to learn from.

    Outputs are averaged, features compared with those of each; `shares` weights the teachers
    (equal where not given). With `written`, what they say is read from the files of `kdp teach`.
    """

    weights: Path | list[Path]
    shares: list[PositiveFloat] | None = None
    written: bool = False

    @property
    def paths(self) -> list[Path]:
        """The files, one or several."""
        return [self.weights] if isinstance(self.weights, Path) else self.weights

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
    names are not the teacher's. The last of the losses gives the fine-tuned network its file name.
    """

    teacher: TeacherConfig | None = None
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


class MeasureConfig(Section):
    """Protocol of `compare` and of the budget; sizes are (height, width) of the input."""

    input_size: tuple[PositiveInt, PositiveInt] = (64, 64)
    latency_size: tuple[PositiveInt, PositiveInt] = (128, 128)
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


class Config(Section):
    """A whole configuration file; each subcommand reads the sections it needs."""

    seed: int = Field(0, ge=0)
    device: str = "auto"
    output: OutputConfig
    model: ModelConfig | None = None
    teacher: Path | None = None
    data: DataConfig = DataConfig()
    evaluation: dict[str, PicturesConfig] = {"embedded": PicturesConfig()}
    tiles: TileConfig = TileConfig()
    measure: MeasureConfig = MeasureConfig()
    mac_constraint: float | None = Field(None, gt=0, lt=1)
    prune: PruneConfig = PruneConfig()
    train: TrainConfig | None = None
    finetune: TrainConfig | None = None
    distill: DistillConfig | None = None
    dynamic: DynamicConfig | None = None

    def plain(self) -> dict[str, Any]:
        """The configuration in plain values, as records keep it."""
        return self.model_dump(mode="json")


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Compose a YAML file (Hydra defaults lists, `key=value` overrides) and check it.

    Raises:
        KdpError: the file is missing or no YAML, or a key or value does not fit the schema.
    """
    plain = _compose(path, overrides)
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise KdpError(f"{path}: {_explain(error)}") from error


def _compose(path: Path, overrides: Sequence[str]) -> Any:
    from hydra import compose, initialize
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    wrong = next((o for o in overrides if not _OVERRIDE.fullmatch(o)), None)
    if wrong is not None:
        raise KdpError(f"{path}: the override {wrong!r} is not of the form KEY=VALUE")
    groups: set[str] = set()
    store = ConfigStore.instance()
    _register(path, path.parent, store, groups)
    for group, _, name in (o.partition("=") for o in overrides):
        if group in groups:
            _register(path.parent / group / f"{name}.yml", path.parent, store, set())
    fixed = [o if o.split("=")[0] in groups or o[0] in "+~" else f"++{o}" for o in overrides]
    try:
        with initialize(version_base="1.3", config_path=None):
            composed = compose(config_name=path.stem, overrides=fixed)
        return OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        given = getattr(error, "override", None)
        where = f" (in the override {given.removeprefix('++')!r})" if given else ""
        raise KdpError(f"{path}: {str(error).splitlines()[0]}{where}") from error


def _register(path: Path, root: Path, store: Any, groups: set[str]) -> None:
    """Give Hydra a file and those its defaults list names, whatever their suffix."""
    from omegaconf import DictConfig, OmegaConf

    if not path.is_file():
        raise KdpError(f"the configuration {path} does not exist")
    try:
        node = OmegaConf.load(path)
    except Exception as error:  # the YAML library has no common base for what it raises
        raise KdpError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, DictConfig):
        raise KdpError(f"{path} holds no configuration (a mapping of keys to values)")
    folder = path.parent.relative_to(root).as_posix()
    store.store(name=path.stem, node=node, group=None if folder == "." else folder)
    for entry in node.get("defaults", []):
        pairs = [(None, entry)] if isinstance(entry, str) else list(entry.items())
        for group, name in pairs:
            if name == "_self_":
                continue
            if group:
                groups.add(group)
            _register(path.parent / (group or "") / f"{name}.yml", root, store, groups)


def _explain(error: ValidationError) -> str:
    """The first fault in one line, with the nearest key that exists."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "missing":
        return f"the key {where!r} is needed and missing{more}"
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}, got {reprlib.repr(first['input'])}{more}"
    known = _known_keys(first["loc"][:-1])
    near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
    return f"unknown key {where!r}; {hint}{more}"


def _known_keys(location: Sequence[int | str]) -> list[str]:
    """Keys of the schema at a place in the file."""
    schema = Config.model_json_schema()
    node: dict[str, Any] = schema
    for part in location:
        node = node.get("properties", {}).get(str(part)) or node.get("additionalProperties", {})
        options = [node, *node.get("anyOf", []), *node.get("allOf", [])]
        reference = next((o["$ref"] for o in options if "$ref" in o), None)
        if reference:
            node = schema["$defs"][reference.rsplit("/", 1)[-1]]
    return sorted(node.get("properties", {}))
