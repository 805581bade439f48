"""A whole configuration file."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, model_validator

from kdp.config import registry
from kdp.config.base import Section, extend
from kdp.config.data import DataConfig, EvaluationConfig, data_schema, samples_schema
from kdp.config.distill import DistillConfig
from kdp.config.dynamic import DynamicConfig
from kdp.config.epochs import LengthSection
from kdp.config.experiments import ExperimentsConfig
from kdp.config.measure import LimitsConfig, MeasureConfig
from kdp.config.model import ModelConfig
from kdp.config.output import OutputConfig
from kdp.config.prune import PruneConfig, RoundConfig, prune_schema
from kdp.config.recover import RecoverConfig
from kdp.config.train import TrainConfig
from kdp.errors import KdpError

S = TypeVar("S", bound=Section)
LENGTHS: dict[str, type[LengthSection]] = {
    "train": TrainConfig,
    "finetune": TrainConfig,
    "dynamic": DynamicConfig,
}
"""Sections with lengths in steps or in epochs."""


class Config(Section):
    """A whole configuration file; each subcommand reads the sections it needs.

    The budget of pruning is `mac_constraint` or `pruning_ratio`, or `rounds` that prune, fine-tune
    and rebuild again and again. Sections that families own are read by `section`.
    """

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of all random numbers."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto uses a GPU if there is one."""
    output: OutputConfig
    """Where the stages write."""
    model: ModelConfig | None = None
    """The network to train."""
    teacher: Path | None = None
    """The trained network that `prune` starts from and `finetune` learns from."""
    data: DataConfig = DataConfig()
    """Training samples."""
    evaluation: dict[str, EvaluationConfig] = {"embedded": EvaluationConfig()}
    """Evaluation sets by name; the first one without `at_end` selects the best network."""
    measure: MeasureConfig = MeasureConfig()
    """How networks are measured."""
    mac_constraint: float | None = Field(None, gt=0, lt=1)
    """Pruning budget: share of all MACs to keep; the search distributes it over the groups."""
    pruning_ratio: float | None = Field(None, gt=0, lt=1)
    """Alternative pruning budget: share of units to remove from every group."""
    prune: PruneConfig = PruneConfig()
    """How units are scored, and what may be removed."""
    recover: RecoverConfig | None = None
    """Recovery without training, the last step of `prune`; none if not given."""
    train: TrainConfig | None = None
    """Optimisation of `kdp train`."""
    finetune: TrainConfig | None = None
    """Optimisation of `kdp finetune`."""
    distill: DistillConfig | None = None
    """Knowledge distillation in `train` and `finetune`."""
    dynamic: DynamicConfig | None = None
    """Pruning during training, in `kdp train`."""
    experiments: ExperimentsConfig | None = None
    """Keep every result; nothing is kept if not given."""
    rounds: list[RoundConfig] | None = Field(None, min_length=1)
    """Progressive pruning: the rounds to run, instead of a single budget."""
    limits: LimitsConfig | None = None
    """Limits on the size and MACs of the deployed network."""

    @model_validator(mode="after")
    def _one_budget(self) -> Config:
        if self.mac_constraint is not None and self.pruning_ratio is not None:
            raise ValueError("give mac_constraint or pruning_ratio, and null for the other")
        if self.rounds and (self.mac_constraint or self.pruning_ratio or self.dynamic):
            raise ValueError("rounds have their own pruning_ratio, and no dynamic beside them")
        return self

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Config:
        """Check plain values, with the sections and kinds of all registered families.

        Raises:
            pydantic.ValidationError: a key or a value does not fit.
        """
        if cls is Config:
            return full_schema().model_validate(obj, **options)
        return super().model_validate(obj, **options)

    def section(self, section: type[S]) -> S:
        """A registered section, its defaults where the file does not have it.

        Raises:
            KdpError: the file does not have it, and a field of it has no default.
        """
        key = next(key for key, known in registry.sections().items() if known is section)
        value = getattr(self, key, None)
        if isinstance(value, section):
            return value
        if any(field.is_required() for field in section.model_fields.values()):
            raise KdpError(f"the required section {key!r} is missing")
        return section()

    def plain(self) -> dict[str, Any]:
        """The configuration in plain values, as records keep it."""
        return self.model_dump(mode="json")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by value: the class with the registered sections is made at run time."""
        return Config.model_validate, (self.plain(),)


def full_schema() -> type[Config]:
    """`Config` with all that is registered."""
    return _full_schema(registry.version())


@lru_cache(maxsize=4)
def _full_schema(version: int) -> type[Config]:
    fields: dict[str, Any] = {
        "data": (data_schema(), _default("data", dict)),
        "evaluation": (
            dict[str, samples_schema()],  # type: ignore[misc]
            _default("evaluation", lambda: {"embedded": {}}),
        ),
        "prune": (prune_schema(), _default("prune", dict)),
    }
    for key, section in registry.sections().items():
        required = any(field.is_required() for field in section.model_fields.values())
        fields[key] = (section | None, None) if required else (section, section())
    return extend("Config", (Config,), Config.__doc__, **fields)


def _default(key: str, make: Callable[[], Any]) -> Any:
    """A field with the sentence of `Config`, whose default is checked as a file's value is."""
    description = Config.model_fields[key].description
    return Field(default_factory=make, validate_default=True, description=description)
