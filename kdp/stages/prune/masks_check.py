"""Whether masks on disk are those that a configuration would search."""

from __future__ import annotations

from pathlib import Path

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.files import input_path, sha256
from kdp.stages.prune.request import MasksRequest
from kdp.stages.settings import Settings, difference, masks_settings
from kdp.types import Provenance


def check_masks_fit(request: MasksRequest, path: Path) -> None:
    """Make sure that nothing that decided the masks has changed since.

    Only sections that the masks' record holds are compared, and `model` only where both name one.
    Paths may differ where contents are the same.

    Raises:
        KdpError: the teacher's content or a setting is another one; both values are named.
    """
    record = load(path).record
    if record is None:
        return
    before = masks_settings(record.config)
    known = {key for key, value in record.config.items() if key != "model" or value}
    if not request.has_model:
        known.discard("model")
    change = difference(_sections(before, known), _sections(request.settings, known))
    if change:
        again = f"run `kdp {request.stage}` again"
        raise KdpError(f"{path} was made with {change}: {again}, or restore the setting")
    _check_teacher(request.teacher, path, record)


def _sections(settings: Settings, names: set[str]) -> Settings:
    return {key: value for key, value in settings.items() if key.partition(".")[0] in names}


def _check_teacher(current: Path | None, path: Path, record: Provenance) -> None:
    """Compare contents. A teacher that is no longer here has not changed either."""
    if record.stage != "prune" or current is None or not record.parents:
        return
    teacher = record.parents[0]
    if input_path(current).exists() and (content := sha256(current)) != teacher.sha256:
        raise KdpError(
            f"{path} was made with teacher={teacher.path} ({teacher.sha256[:12]}), now "
            f"teacher={current} ({content[:12]}): run `kdp prune` again, or restore it"
        )
