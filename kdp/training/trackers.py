"""Optional experiment trackers (TensorBoard, Weights & Biases), through accelerate.

A tracker that is missing or fails costs one warning and is dropped; the training continues. W&B
logs offline unless WANDB_MODE=online.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import TensorBoardTracker, WandBTracker, get_available_trackers

from kdp.errors import first_line
from kdp.log import log

PROJECT = "kdp"
_OFFLINE = "offline"
_ADVICE = {"wandb": f"; WANDB_MODE={_OFFLINE} logs to this machine only"}


class Trackers:
    """The trackers of a run.

    Args:
        names: "tensorboard", "wandb".
        folder: of the run. The trackers write there; wandb prefers WANDB_DIR if it is set.
        settings: of the run, to display.
    """

    def __init__(self, names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> None:
        self._running: dict[str, Any] = {}
        hyperparameters = {key: str(value) for key, value in settings.items()}
        for name in _installed(names):
            tracker = _TRACKERS[name](folder)
            self._running[name] = tracker
            self._call(name, "did not start", tracker.start)
            self._call(name, "did not start", tracker.store_init_configuration, hyperparameters)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log the numbers of a step to every tracker."""
        for name, tracker in list(self._running.items()):
            self._call(name, "stopped", tracker.log, numbers, step)

    def finish(self) -> None:
        """Close every tracker."""
        for name, tracker in list(self._running.items()):
            self._call(name, "did not finish", tracker.finish)

    def _call(self, name: str, failure: str, action: Callable[..., None], *args: Any) -> None:
        """Call a tracker; drop it with a warning if it fails, whatever the exception."""
        if name not in self._running:
            return
        try:
            action(*args)
        except Exception as error:
            del self._running[name]
            reason = first_line(error).rstrip(".")
            log.warning(f"{name} tracking {failure}: {reason}{_ADVICE.get(name, '')}")


def _tensorboard(folder: Path) -> TensorBoardTracker:
    return TensorBoardTracker(PROJECT, folder)


def _wandb(folder: Path) -> WandBTracker:
    # Without a mode wandb sends the run to its servers, or asks for a login; kdp works offline.
    mode = os.environ.get("WANDB_MODE", _OFFLINE)
    return WandBTracker(PROJECT, dir=os.environ.get("WANDB_DIR", str(folder)), mode=mode)


_TRACKERS: dict[str, Callable[[Path], Any]] = {"tensorboard": _tensorboard, "wandb": _wandb}


def _installed(names: Sequence[str]) -> list[str]:
    installed = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in installed:
            log.warning(f"{name} is not installed, the run is not tracked: pip install {name}")
    return [name for name in names if name in installed]
