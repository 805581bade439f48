"""What `kdp prune` needs of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdp.config import Config, PruneConfig, RecoverConfig
from kdp.errors import KdpError
from kdp.stages.experiments.store import ExperimentRequest
from kdp.stages.paths import ChainPaths, chain_paths, check_input, prunes
from kdp.stages.settings import masks_settings
from kdp.types import Arch


@dataclass(frozen=True)
class PruneRequest:
    """What `kdp prune` needs of a configuration, checked once.

    Attributes:
        config: the whole configuration, for the task and the record.
        teacher: the file of the network that is pruned.
        arch: of the section `model`, which the file must have; None to take the file's.
        settings: the section `prune`.
        mac_constraint: fraction of the MACs that stays; None where the ratio decides.
        pruning_ratio: fraction of every group's units that is removed; None where MACs decide.
        recover: the section `recover`, if it is given.
        paths: the files of the chain.
        seed: of random importance.
        device: "auto", "cpu", "cuda", ...
        experiment: where the result is recorded, if anywhere.
    """

    config: Config
    teacher: Path
    arch: Arch | None
    settings: PruneConfig
    mac_constraint: float | None
    pruning_ratio: float | None
    recover: RecoverConfig | None
    paths: ChainPaths
    seed: int
    device: str
    experiment: ExperimentRequest | None

    @classmethod
    def from_config(cls, config: Config) -> PruneRequest:
        """The request of a configuration.

        Raises:
            KdpError: the teacher, its file or the budget is missing, or the network prunes while it
                trains.
        """
        if config.teacher is None or (config.mac_constraint or config.pruning_ratio) is None:
            raise KdpError("kdp prune needs `teacher`, and `mac_constraint` or `pruning_ratio`")
        if config.dynamic is not None:
            raise KdpError(
                "this configuration prunes while it trains; remove `dynamic` to use kdp prune"
            )
        check_input(config, "teacher", config.teacher)
        return cls(
            config=config,
            teacher=config.teacher,
            arch=config.model.arch if config.model else None,
            settings=config.prune,
            mac_constraint=config.mac_constraint,
            pruning_ratio=config.pruning_ratio,
            recover=config.recover,
            paths=chain_paths(config),
            seed=config.seed,
            device=config.device,
            experiment=ExperimentRequest.from_config(config),
        )


@dataclass(frozen=True)
class MasksRequest:
    """What a configuration says of masks that a stage reads.

    Attributes:
        settings: those that decide the masks, by dotted key.
        has_model: whether the configuration names the network.
        teacher: the file of the network that was pruned, if it is named.
        stage: the subcommand that makes the masks.
    """

    settings: dict[str, Any]
    has_model: bool
    teacher: Path | None
    stage: str

    @classmethod
    def from_config(cls, config: Config) -> MasksRequest:
        """The request of a configuration."""
        return cls(
            settings=masks_settings(config.plain()),
            has_model=config.model is not None,
            teacher=config.teacher,
            stage="train" if config.dynamic else "prune",
        )


@dataclass(frozen=True)
class RecoverRequest:
    """What `kdp recover` needs of a configuration.

    Attributes:
        config: the whole configuration, for the task and the record.
        teacher: the file of the network before pruning.
        settings: the section `recover`, or its defaults.
        masks: what the configuration says of the masks.
        paths: the files of the chain.
        seed: of positions of the layers' outputs.
        device: "auto", "cpu", "cuda", ...
        experiment: where the result is recorded, if anywhere.
    """

    config: Config
    teacher: Path
    settings: RecoverConfig
    masks: MasksRequest
    paths: ChainPaths
    seed: int
    device: str
    experiment: ExperimentRequest | None

    @classmethod
    def from_config(cls, config: Config) -> RecoverRequest:
        """The request of a configuration.

        Raises:
            KdpError: the teacher or its file is missing, or the network prunes while it trains.
        """
        if config.teacher is None:
            raise KdpError("kdp recover needs `teacher`, the network before pruning")
        if config.dynamic is not None:
            raise KdpError("kdp recover is for networks that kdp prune has pruned; see `dynamic`")
        check_input(config, "teacher", config.teacher)
        return cls(
            config=config,
            teacher=config.teacher,
            settings=config.recover or RecoverConfig(),
            masks=MasksRequest.from_config(config),
            paths=chain_paths(config),
            seed=config.seed,
            device=config.device,
            experiment=ExperimentRequest.from_config(config),
        )


@dataclass(frozen=True)
class RebuildRequest:
    """What `kdp rebuild` needs of a configuration.

    Attributes:
        config: the whole configuration, for the task and the record.
        paths: the files of the chain.
        masks: of the chain; None where it does not prune.
        experiment: where the result is recorded, if anywhere.
    """

    config: Config
    paths: ChainPaths
    masks: MasksRequest | None
    experiment: ExperimentRequest | None

    @classmethod
    def from_config(cls, config: Config) -> RebuildRequest:
        """The request of a configuration."""
        masks = MasksRequest.from_config(config) if prunes(config) else None
        experiment = ExperimentRequest.from_config(config)
        return cls(config, chain_paths(config), masks, experiment)
