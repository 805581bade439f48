"""The file that an interrupted training goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kdp.artifacts import Artifact, load, save
from kdp.errors import KdpError


@dataclass(frozen=True)
class Checkpoint:
    """State of a run on disk.

    Attributes:
        path: of the file.
        signature: settings that decide the result; a run goes on only with the same ones.
    """

    path: Path
    signature: dict[str, Any]

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file.

        Raises:
            KdpError: a weight is not finite, or the file cannot be written; the file is as it was.
        """
        check_finite(state["model"], f"{self.path} is left as it was")
        state = {**state, "signature": self.signature}
        save(self.path, Artifact({}, extra={"training": state}))

    def read(self) -> dict[str, Any]:
        """What `write` stored.

        Raises:
            KdpError: there is no such file, or it was made with other settings.
        """
        if not self.path.exists():
            raise KdpError(f"there is nothing to resume: {self.path} does not exist")
        state = load(self.path).extra.get("training")
        if state is None:
            raise KdpError(f"{self.path} is no training checkpoint")
        before, now = state["signature"], self.signature
        changed = [key for key in now if key in before and before[key] != now[key]]
        if changed:
            raise KdpError(
                f"{self.path} was made with other settings ({', '.join(changed)}); "
                "restore them, or start anew without --resume"
            )
        return dict(state)


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
