"""Whether masks on disk are those that a configuration would search."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdp.artifacts import Artifact, load
from kdp.config import Config
from kdp.errors import KdpError
from kdp.files import input_path, sha256
from kdp.pruning.groups import Masks
from kdp.types import Provenance

DECISIVE = (
    "model.name",
    "model.args",
    "mac_constraint",
    "pruning_ratio",
    "prune",
    "dynamic",
    "measure.input_size",
    "seed",
)
"""Keys of the configuration that decide the masks, with all keys below them."""
PATHS = {"prune.scores"}
DIGEST = "masks_digest"
"""Where a fine-tuned network's file keeps the identity of the masks it was trained with."""


def check_masks_fit(config: Config, path: Path) -> None:
    """Make sure that nothing that decided the masks has changed since.

    Only what the masks' record holds is compared; paths may differ where contents are the same.

    Raises:
        KdpError: the teacher's content or a setting is another one; both values are named.
    """
    record = load(path).record
    if record is None:
        return
    recorded = record.config
    before, now = decisive_settings(recorded), decisive_settings(config.plain())
    present = {key.partition(".")[0] for key in now} & recorded.keys()
    for key in sorted({*before, *now}):
        section = key.partition(".")[0]
        comparable = section in present and not (section == "model" and not recorded["model"])
        if comparable and before.get(key) != now.get(key):
            raise KdpError(
                f"{path} was made with {key}={before.get(key)}, and now it is "
                f"{key}={now.get(key)}: run the stage that made the masks again, or restore {key}"
            )
    _check_teacher(config, path, record)


def decisive_settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide the masks, by dotted key; defaults count as settings."""
    with suppress(ValidationError):  # a configuration of another version is compared as it is
        plain = Config.model_validate(dict(plain)).plain()
    flat = _flatten(plain)
    return {
        key: value
        for key, value in flat.items()
        if key not in PATHS and any(f"{key}.".startswith(f"{start}.") for start in DECISIVE)
    }


def masks_digest(masks: Masks) -> str:
    """The identity of masks: SHA-256 of names and values, whatever file they are in."""
    digest = hashlib.sha256()
    for name, mask in sorted(masks.items()):
        digest.update(f"{name}\0".encode() + mask.cpu().numpy().tobytes())
    return digest.hexdigest()


def made_with_masks(artifact: Artifact, masks: Path) -> bool:
    """Whether a fine-tuned network descends from a file of masks, or from equal masks."""
    content = load(masks).extra.get("masks", {})
    parents = {parent.sha256 for parent in artifact.record.parents} if artifact.record else set()
    return artifact.extra.get(DIGEST) == masks_digest(content) or sha256(masks) in parents


def _check_teacher(config: Config, path: Path, record: Provenance) -> None:
    """Compare contents. A teacher that is no longer here has not changed either."""
    if record.stage != "prune" or config.teacher is None or not record.parents:
        return
    teacher = record.parents[0]
    if (
        input_path(config.teacher).exists()
        and (content := sha256(config.teacher)) != teacher.sha256
    ):
        raise KdpError(
            f"{path} was made with teacher={teacher.path} ({teacher.sha256[:12]}), and now it is "
            f"teacher={config.teacher} ({content[:12]}): run `kdp prune` again, or restore it"
        )


def _flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
