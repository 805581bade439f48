"""The file that an interrupted training continues from."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from kdp.artifacts import Artifact, load, save
from kdp.contents import check_types
from kdp.errors import KdpError
from kdp.files import sha256
from kdp.tensor_contents import TrainingContent


@dataclass(frozen=True)
class Unfinished:
    """A run that stopped before its end: steps done, and the command that started it."""

    step: int
    command: str


@dataclass(frozen=True)
class Checkpoint:
    """State of a run on disk.

    Attributes:
        path: of the file.
        signature: settings that decide the result; a run resumes only with the same ones.
        targets: files that the run will replace, by path, as `file_state` gave them at its start.
    """

    path: Path
    signature: dict[str, Any]
    targets: Mapping[str, str | None] = field(default_factory=dict)

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file.

        Raises:
            KdpError: a weight is not finite, or the file cannot be written; the file is as it was.
        """
        check_finite(state["model"], f"{self.path} is left as it was")
        command = " ".join(["kdp", *sys.argv[1:]])
        run = {"signature": self.signature, "targets": dict(self.targets), "command": command}
        save(self.path, Artifact({}, extra={"training": {**state, **run}}))

    def read(self) -> dict[str, Any]:
        """What `write` stored.

        Raises:
            KdpError: there is no such file, or it was made with other settings.
        """
        if not self.path.exists():
            raise KdpError(f"there is nothing to resume: {self.path} does not exist")
        state = self._state()
        now = self.signature
        # Checkpoints of earlier versions do not say which samples they were trained on.
        before = {"samples": now.get("samples"), **state["signature"]}
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if changed:
            raise KdpError(
                f"{self.path} was made with other settings ({', '.join(changed)}); "
                "restore them, or start over with --overwrite"
            )
        return state

    def fits(self, steps: int) -> bool:
        """Whether a run of so many steps can resume from the file."""
        try:
            return bool(self.read()["step"] <= steps)
        except KdpError:
            return False

    def changed_targets(self, paths: Sequence[Path]) -> list[Path]:
        """Those of some files that are not as they were when the run started.

        Raises:
            KdpError: there is no checkpoint that fits.
        """
        before = self.read().get("targets", {})
        return [p for p in paths if str(p) in before and before[str(p)] != file_state(p)]

    def unfinished(self, paths: Sequence[Path]) -> Unfinished | None:
        """The run that the file belongs to, unless it has finished.

        A run replaces all its files at its end, so it has finished if the first has changed. The
        run may have had other files, in a configuration that shares its folder with this one.

        Raises:
            KdpError: the file is no checkpoint.
        """
        if not self.path.exists():
            return None
        state = self._state()
        before = state.get("targets") or {str(paths[0]): None}
        first = str(paths[0]) if str(paths[0]) in before else next(iter(before))
        if file_state(Path(first)) != before[first]:
            return None
        return Unfinished(state["step"], state.get("command", ""))

    def _state(self) -> dict[str, Any]:
        state = load(self.path).extra.get("training")
        if state is None:
            raise KdpError(f"{self.path} is no training checkpoint")
        check_types(self.path, TrainingContent, state, "training")
        return dict(state)


def file_state(path: Path) -> str | None:
    """A file's SHA-256, None where it does not exist."""
    return sha256(path) if path.exists() else None


def check_finite(params: dict[str, Tensor], consequence: str) -> None:
    """Refuse weights that a diverged step has spoilt.

    Args:
        params: a state dict.
        consequence: ends the message: what that means for the run.

    Raises:
        KdpError: a weight is not finite.
    """
    for name, tensor in params.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise KdpError(
                f"the weights {name} are no longer finite: lower the learning rate or clip "
                f"gradients (clip_norm); {consequence}"
            )
