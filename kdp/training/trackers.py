"""Optional experiment trackers: TensorBoard, through accelerate, and Weights & Biases.

A tracker that is missing or fails costs one line and is dropped; the training continues. W&B logs
offline, into the folder of the run, unless WANDB_MODE=online.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from accelerate.tracking import TensorBoardTracker

from kdp.errors import first_line
from kdp.log import log, log_once
from kdp.training.job import WANDB_FOLDER, TrackedRun

PROJECT = "kdp"
_OFFLINE = "offline"
_ADVICE = {"wandb": f"; WANDB_MODE={_OFFLINE} logs to this machine only"}
_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}


class _Tracker(Protocol):
    def log(self, numbers: Mapping[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


class Trackers:
    """The trackers of a run.

    Args:
        names: "tensorboard", "wandb".
        folder: of the run. The trackers write there; wandb prefers WANDB_DIR if it is set.
        run: what there is to show.
        step: steps that an earlier run has done.
    """

    def __init__(self, names: Sequence[str], folder: Path, run: TrackedRun, step: int = 0) -> None:
        self._running: dict[str, _Tracker] = {}
        for name in _installed(names):
            try:
                self._running[name] = _TRACKERS[name](folder, run)
            except Exception as error:  # whatever stops a tracker does not stop the training
                _warn(name, "did not start", error)
        if run.numbers:
            self.log(run.numbers, step)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log the numbers of a step to every tracker."""
        for name, tracker in list(self._running.items()):
            self._call(name, "stopped", partial(tracker.log, numbers, step))

    def finish(self) -> None:
        """Close every tracker."""
        for name, tracker in list(self._running.items()):
            self._call(name, "did not finish", tracker.finish)

    def _call(self, name: str, failure: str, action: Callable[[], None]) -> None:
        """Call a tracker; drop it with a warning if it fails, whatever the exception."""
        try:
            action()
        except Exception as error:
            del self._running[name]
            _warn(name, failure, error)


def _warn(name: str, failure: str, error: Exception) -> None:
    reason = first_line(error).rstrip(".")
    log.warning(f"{name} tracking {failure}: {reason}{_ADVICE.get(name, '')}")


class _TensorBoard:
    def __init__(self, folder: Path, run: TrackedRun) -> None:
        self._tracker: Any = TensorBoardTracker(PROJECT, folder)
        self._tracker.start()
        self._tracker.store_init_configuration(dict(_flat(run.config)))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._tracker.log(dict(numbers), step)

    def finish(self) -> None:
        self._tracker.finish()


class _Wandb:
    def __init__(self, folder: Path, run: TrackedRun) -> None:
        # Without a mode wandb sends the run to its servers, or asks for a login; kdp works offline.
        mode = os.environ.get("WANDB_MODE", _OFFLINE)
        parent = os.environ.get("WANDB_DIR", str(folder))
        with _default_environment(WANDB_CACHE_DIR=parent):
            import wandb

            self._run = wandb.init(
                project=PROJECT,
                name=run.name or None,
                dir=parent,
                mode=mode,
                config=dict(run.config),
                # Its own lines would end up between those of the progress bar.
                settings={"console": "off", "silent": mode != "online"},
            )
        log.info(f"wandb logs to {Path(parent, WANDB_FOLDER)} ({mode})")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def finish(self) -> None:
        self._run.finish()


_TRACKERS: dict[str, Callable[[Path, TrackedRun], _Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key, of the types that TensorBoard takes."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            yield f"{prefix}{key}", value if plain else str(value)


@contextmanager
def _default_environment(**values: str) -> Iterator[None]:
    """Environment variables that are not set, set meanwhile."""
    missing = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for key in missing:
            os.environ.pop(key, None)


def _installed(names: Sequence[str]) -> list[str]:
    """Those of the trackers whose package is there; one line for each other one."""
    missing = [name for name in names if not any(map(_is_installed, _PACKAGES[name]))]
    for name in missing:
        log_once(f"{name} is not installed, so it does not track this: pip install {name}")
    return [name for name in names if name not in missing]


def _is_installed(package: str) -> bool:
    """Asked of the package's metadata: a folder `wandb` of offline runs can be imported, too."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
