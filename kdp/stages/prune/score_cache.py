"""Importance on disk: measured once, reused by every budget."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import signature
from typing import Any

from torch import Tensor, nn

from kdp.artifacts import Artifact, load, make_record, save
from kdp.config import PruneConfig
from kdp.contents import Content, check_types
from kdp.data.content import fingerprint
from kdp.errors import Interrupted, KdpError, join_names
from kdp.finite import is_finite
from kdp.log import log
from kdp.progress import Advance, no_bar, progress
from kdp.pruning.groups import Group
from kdp.pruning.importance import SCORE_COMBINERS, make_scorer
from kdp.pruning.importance.base import RawScores, ScoringContext
from kdp.pruning.knapsack import MacCounter, unit_costs
from kdp.stages.prune.request import PruneRequest
from kdp.stages.settings import difference, flatten
from kdp.tasks.base import PruningTask
from kdp.tensor_contents import Table
from kdp.training.shutdown import StopRequested, graceful_shutdown, stop_between_layers
from kdp.types import Parent, Provenance, RunTime

MEASUREMENT = 2
"""Version of what criteria measure; files of another version are measured again."""
CONTENT = {
    "measurement": "another version of kdp",
    "teacher": "another teacher",
    "samples": "other calibration samples",
}
"""What a condition that is a version or a hash stands for, where it has changed."""
CONTINUE = "continue with --resume"


class MeasurementsContent(Content):
    """What `Measurements` writes."""

    parts: dict[str, Table]
    costs: dict[str, dict[str, float]]
    seconds: float
    complete: bool


class Measurements:
    """The importance of every unit, kept in a file group by group.

    A file that was measured under other conditions is not used.

    Args:
        request: names the file, the criterion and the settings that the numbers depend on.
        teacher: its record and hash, the only parent of the file.
        samples: that calibration data are drawn from.
        resume: use a file that an interrupted run did not finish.
        overwrite: start over where there is such a file.

    Raises:
        KdpError: there is such a file, and neither is given.
    """

    def __init__(
        self,
        request: PruneRequest,
        teacher: Parent,
        samples: Sequence[Any],
        resume: bool,
        overwrite: bool,
    ) -> None:
        self.request, self.teacher = request, teacher
        self.path = request.paths.scores
        self.key = measurement_key(request, teacher.sha256, samples)
        self.parts: RawScores = {}
        self.costs: dict[str, dict[str, float]] = {}
        self.seconds = 0.0
        if not self.path.exists():
            return
        extra = load(self.path).extra
        if not (extra.get("complete", True) or resume or overwrite):
            raise KdpError(
                f"{self.path} holds an unfinished measurement ({len(extra['parts'])} groups): "
                "continue with --resume, or start over with --overwrite"
            )
        if extra.get("key") != self.key:
            change = _change(extra.get("key") or {}, self.key)
            log.info(f"{self.path} was measured with {change}: measuring again")
            return
        check_types(self.path, MeasurementsContent, extra)
        if extra["complete"] or resume:
            self.parts, self.seconds = extra["parts"], extra["seconds"]
            self.costs = extra["costs"]

    def complete(self, context: ScoringContext, groups: Sequence[Group]) -> RawScores:
        """Measure what is missing, with a progress bar; the file is written after every group.

        Raises:
            KdpError: importance is not finite.
            Interrupted: on SIGINT, SIGTERM or SIGHUP, with the file written.
        """
        missing = [group for group in groups if group.name not in self.parts]
        if not missing:
            log.info(f"importance: reused from {self.path}")
            return self.parts
        settings = self.request.settings
        reported = Reported()
        context = replace(context, report=reported)
        score = make_scorer(settings.criterion, context, settings.options)
        total = sum(group.units for group in groups)
        done = total - sum(group.units for group in missing)
        bar = progress("importance", total, done)
        with graceful_shutdown() as shutdown, bar as reported.advance:
            for group in missing:
                started = time.perf_counter()
                reported.begin(group)
                try:
                    with stop_between_layers(context.model, lambda: shutdown.overdue):
                        measured = score(group)
                except StopRequested:
                    raise Interrupted(f"stopped in {group.name}; {CONTINUE}") from None
                self.parts[group.name] = self._checked(group.name, measured)
                self.seconds += time.perf_counter() - started
                self._save(groups)
                reported.end(group)
                if shutdown.stop_requested:
                    raise Interrupted(f"stopped after {group.name}; {CONTINUE}")
        return self.parts

    def _checked(self, name: str, measured: Tensor) -> Tensor:
        if not is_finite(measured):
            raise KdpError(
                f"the importance of {name} is not finite: {self.request.teacher} gives NaN or "
                "infinite values on the calibration data"
            )
        return measured

    def unit_costs(
        self,
        groups: Sequence[Group],
        count: MacCounter,
        input_size: tuple[int, int],
    ) -> dict[str, float]:
        """What one unit of each group costs at this input size; counted once."""
        size = _size_key(input_size)
        if size not in self.costs:
            self.costs[size] = unit_costs(groups, count)
            self._save(groups)
        return self.costs[size]

    def cover(self, groups: Sequence[Group], input_size: tuple[int, int]) -> bool:
        """Whether all that a search needs was measured before, so that nothing is written.

        Raises:
            KdpError: the file has another number of units.
        """
        for group in groups:
            if group.name in self.parts and len(self.parts[group.name]) != group.units:
                raise KdpError(f"{self.path} is damaged: {group.name} has another size; delete it")
        measured = all(group.name in self.parts for group in groups)
        return measured and _size_key(input_size) in self.costs

    @cached_property
    def _record(self) -> Provenance:
        """Made once: it runs git, which takes longer than some groups do."""
        config = self.request.config
        return make_record("prune", config.plain(), [self.teacher], device=config.device)

    def _save(self, groups: Sequence[Group]) -> None:
        record = replace(self._record, time=RunTime(time.time(), None))
        extra = {
            "key": self.key,
            "parts": self.parts,
            "costs": self.costs,
            "seconds": self.seconds,
            "complete": all(group.name in self.parts for group in groups),
        }
        save(self.path, Artifact({}, record=record, extra=extra))


@dataclass
class Reported:
    """Moves a progress bar within the groups, for criteria that report what they measure.

    Attributes:
        units: of the current group that were reported.
        advance: of the bar.
    """

    units: int = 0
    advance: Advance = no_bar

    def __call__(self, units: int) -> None:
        """So many units more were measured."""
        self.units += units
        self.advance(units)

    def begin(self, group: Group) -> None:
        """Name the group that is measured now."""
        self.units = 0
        self.advance(0, note=group.name)

    def end(self, group: Group) -> None:
        """Count the units that were not reported."""
        self.advance(group.units - self.units)


def _size_key(size: tuple[int, int]) -> str:
    return "x".join(str(side) for side in size)


def measurement_key(request: PruneRequest, teacher: str, samples: Sequence[Any]) -> dict[str, Any]:
    """Everything that measurements depend on, the files of the samples included."""
    plain, settings = request.config.plain(), request.settings
    data = {k: v for k, v in plain["data"].items() if k not in {"workers", "patch_size"}}
    return {
        "measurement": MEASUREMENT,
        "teacher": teacher,
        "criterion": settings.criterion,
        "options": _measured_options(settings),
        "calibration": plain["prune"]["calibration"],
        "kinds": settings.kinds,
        "data": data,
        "samples": fingerprint(samples),
        "seed": request.config.seed,
    }


def _change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first condition that is not the same, in words."""
    for key, words in CONTENT.items():
        if before.get(key) != now[key]:
            return words
    return difference(flatten(before), flatten(now)) or "other settings"


def _measured_options(settings: PruneConfig) -> dict[str, Any]:
    """Options of the measurement, without those of the combination of measured scores."""
    combining = SCORE_COMBINERS.get(settings.criterion)
    later = signature(combining).parameters if combining else ()
    return {key: value for key, value in settings.options.items() if key not in later}


def prunable(settings: PruneConfig, task: PruningTask, model: nn.Module) -> list[Group]:
    """The groups to search; the others keep all units.

    Raises:
        KdpError: there are none.
    """
    kinds = settings.kinds
    groups = [g for g in task.groups(model) if g.units and (kinds is None or g.kind in kinds)]
    if not groups:
        wanted = join_names(kinds) if kinds else "units that may be removed"
        raise KdpError(
            f"there is nothing to prune: the network has no {wanted}; see prune.kinds, and run "
            "fewer `rounds` if earlier ones have removed them"
        )
    return groups
