"""The quality that the stages of a point reach."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from kdp.artifacts import load
from kdp.config import Config
from kdp.errors import KdpError
from kdp.tasks import task_for
from kdp.tasks.base import Metrics
from kdp.types import Arch

AS_CUT, RECOVERED = "prune, as cut", "prune, recovered"
"""Names of the stage `prune`: nothing was trained after the cut."""


@dataclass(frozen=True)
class StageQuality:
    """What a stage of a point wrote, and how good it is.

    Attributes:
        stage: the subcommand; `AS_CUT` or `RECOVERED` for `prune`.
        file: the network.
        headline_metrics: the metrics that a table shows, the primary one first.
        metrics: by evaluation set.
    """

    stage: str
    file: str
    headline_metrics: list[str] = field(default_factory=list)
    metrics: dict[str, Metrics] = field(default_factory=dict)

    @property
    def primary(self) -> tuple[str, float] | None:
        """The primary metric and its value on the first evaluation set, where it was measured."""
        metrics = next(iter(self.metrics.values()), {})
        names = [name for name in self.headline_metrics if name in metrics]
        return (names[0], metrics[names[0]]) if names else None


def recorded_quality(stage: str, output: Path) -> tuple[StageQuality, bool]:
    """The quality in the record of the first network that a stage wrote.

    Args:
        stage: the subcommand.
        output: what it printed, the paths of its files among it.

    Returns:
        The quality, and whether it still has to be measured: the record may hold none.
    """
    written = [line for line in output.read_text().splitlines() if line.endswith(".pth")]
    if not written:
        raise KdpError(f"kdp {stage} wrote no network: see {output}")
    artifact = load(Path(written[0]))
    if artifact.record is None:
        return StageQuality(stage, written[0]), False
    config = Config.model_validate(artifact.record.config)
    task = task_for(artifact.arch or Arch(""), config)
    recorded = artifact.record.metrics
    metrics = {name: recorded[name] for name in config.evaluation if name in recorded}
    missing = bool(config.evaluation) and not metrics
    if stage == "prune" and not config.rounds:
        stage = RECOVERED if "recovery" in recorded else AS_CUT
    headline = list(dict.fromkeys([task.primary_metric, *task.headline_metrics]))
    return StageQuality(stage, written[0], headline, metrics), missing


def evaluated_metrics(output: Path) -> dict[str, Metrics]:
    """The metrics by evaluation set that `kdp evaluate FILE --format json` printed."""
    (column,) = json.loads(output.read_text())["columns"]
    return dict(column["quality"])
