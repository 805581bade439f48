"""Trackers beside the curves on disk, by accelerate; one that fails is left out, in one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import TensorBoardTracker, WandBTracker, get_available_trackers

from kdp.errors import first_line
from kdp.log import log

PROJECT = "kdp"
_ADVICE = {"wandb": "; WANDB_MODE=offline keeps it on this machine"}


class Trackers:
    """Those of a run that are there and could be started.

    Args:
        names: "tensorboard", "wandb".
        folder: of the run, where they write (wandb: unless WANDB_DIR says otherwise).
        settings: of the run, for them to show.
    """

    def __init__(self, names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> None:
        self._running: dict[str, Any] = {}
        shown = {key: str(value) for key, value in settings.items()}
        for name in _installed(names):
            tracker = _TRACKERS[name](folder)
            self._running[name] = tracker
            self._call(name, "is not tracked", tracker.start)
            self._call(name, "is not tracked", tracker.store_init_configuration, shown)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers of a step, for every tracker."""
        for name, tracker in list(self._running.items()):
            self._call(name, "is no longer tracked", tracker.log, numbers, step)

    def finish(self) -> None:
        """Nothing comes any more."""
        for name, tracker in list(self._running.items()):
            self._call(name, "is not tracked to its end", tracker.finish)

    def _call(self, name: str, otherwise: str, action: Callable[..., None], *given: Any) -> None:
        """Whatever goes wrong in another program is no reason not to train."""
        if name not in self._running:
            return
        try:
            action(*given)
        except Exception as error:
            del self._running[name]
            reason = first_line(error).rstrip(".")
            log.info(f"the run {otherwise} by {name}: {reason}{_ADVICE.get(name, '')}")


def _tensorboard(folder: Path) -> TensorBoardTracker:
    return TensorBoardTracker(PROJECT, folder)


def _wandb(folder: Path) -> WandBTracker:
    return WandBTracker(PROJECT, dir=os.environ.get("WANDB_DIR", str(folder)))


_TRACKERS: dict[str, Callable[[Path], Any]] = {"tensorboard": _tensorboard, "wandb": _wandb}


def _installed(names: Sequence[str]) -> list[str]:
    there = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in there:
            log.info(f"not tracked by {name}, which is missing: pip install {name}")
    return [name for name in names if name in there]
