"""What `kdp prune` needs of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdp.config import Config, PruneConfig
from kdp.errors import KdpError
from kdp.stages.paths import ChainPaths, chain_paths
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
        paths: the files of the chain.
    """

    config: Config
    teacher: Path
    arch: Arch | None
    settings: PruneConfig
    mac_constraint: float | None
    pruning_ratio: float | None
    paths: ChainPaths

    @classmethod
    def from_config(cls, config: Config) -> PruneRequest:
        """The request of a configuration.

        Raises:
            KdpError: the teacher or the budget is missing, or the network prunes while it trains.
        """
        if config.teacher is None or (config.mac_constraint or config.pruning_ratio) is None:
            raise KdpError("kdp prune needs `teacher`, and `mac_constraint` or `pruning_ratio`")
        if config.dynamic is not None:
            raise KdpError(
                "this configuration prunes while it trains; remove `dynamic` to use kdp prune"
            )
        return cls(
            config=config,
            teacher=config.teacher,
            arch=config.model.arch if config.model else None,
            settings=config.prune,
            mac_constraint=config.mac_constraint,
            pruning_ratio=config.pruning_ratio,
            paths=chain_paths(config),
        )
