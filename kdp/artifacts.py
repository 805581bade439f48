"""The `.pth` files that pass between stages: tensors, plain values and where they came from."""

from __future__ import annotations

import io
import pickle
import platform
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdp import __version__
from kdp.errors import KdpError
from kdp.files import sha256, write_atomic
from kdp.types import Arch

FORMAT, VERSION = "kdp", 1
FOREIGN_KEYS = ("params_ema", "params", "state_dict")


@dataclass(frozen=True)
class Artifact:
    """What a `.pth` file holds.

    Attributes:
        params: the state dict; empty in a file of masks or scores.
        arch: of the network, None in a foreign file.
        record: provenance; empty in a foreign file.
        extra: what else the stage stored (masks, scores, optimizer state).
    """

    params: dict[str, Tensor]
    arch: Arch | None = None
    record: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def save(path: Path, artifact: Artifact) -> None:
    """Write an artifact atomically.

    Raises:
        KdpError: the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "arch": artifact.arch.plain() if artifact.arch else None,
        "params": {name: tensor.detach().cpu() for name, tensor in artifact.params.items()},
        "record": artifact.record,
        **artifact.extra,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path) -> Artifact:
    """Read an artifact or a foreign checkpoint, on the CPU; nothing but tensors is unpickled.

    Raises:
        KdpError: missing, truncated, not a checkpoint, or holding code.
    """
    content = _read(path)
    if content.get("format") == FORMAT:
        if content.get("version") != VERSION:
            raise KdpError(f"{path} has format version {content.get('version')}, not {VERSION}")
        known = {"format", "version", "arch", "params", "record"}
        if not known <= content.keys():
            lost = ", ".join(sorted(known - content.keys()))
            raise KdpError(f"{path} is incomplete: it lacks {lost}")
        extra = {key: value for key, value in content.items() if key not in known}
        arch = Arch.from_plain(content["arch"]) if content["arch"] else None
        return Artifact(content["params"], arch, content["record"], extra)
    return Artifact(_foreign_params(path, content))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        setting = f"; a setting is changed by --set {path}" if "=" in path.name else ""
        raise KdpError(f"{path} does not exist{setting}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript, which is refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise KdpError(f"{path} holds more than tensors (or is no checkpoint): refused") from error
    except PermissionError as error:
        raise KdpError(f"{path} may not be read by this user") from error
    except Exception as error:  # a broken file makes torch raise nearly anything
        what = "TorchScript, which is for other programs" if _is_torchscript(path) else "truncated"
        raise KdpError(f"{path} is {what} or not a checkpoint") from error
    if not isinstance(content, dict):
        raise KdpError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    return content


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _foreign_params(path: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    params = next((content[key] for key in FOREIGN_KEYS if key in content), content)
    if not isinstance(params, Mapping) or not params:
        raise KdpError(f"{path} holds no weights (looked for {', '.join(FOREIGN_KEYS)})")
    if not all(isinstance(value, Tensor) for value in params.values()):
        raise KdpError(f"{path} holds values that are not tensors where weights should be")
    return {str(name).removeprefix("module."): tensor for name, tensor in params.items()}


def make_record(
    stage: str,
    config: Mapping[str, Any],
    parents: Sequence[Path] = (),
    metrics: Mapping[str, Any] | None = None,
    started: float | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Provenance of an artifact, the parents' own records included, that of each file once.

    Args:
        stage: the subcommand.
        config: the resolved configuration, plain values.
        parents: files this one was made from.
        metrics: what was measured of the result.
        started: `time.time()` at the start of the work.
        device: where it ran.
    """
    now = time.time()
    return {
        "stage": stage,
        "command": " ".join(["kdp", *sys.argv[1:]]),
        "config": dict(config),
        "seed": config.get("seed"),
        "versions": {
            "kdp": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "device": device,
        "git_commit": _git_commit(),
        "parents": _parents(parents),
        "metrics": dict(metrics or {}),
        "time": {"finished": now, "seconds": now - started if started else None},
    }


def _parents(paths: Sequence[Path]) -> list[dict[str, Any]]:
    found = []
    for path in paths:
        found.append({"path": str(path), "sha256": sha256(path), "record": _record(path)})
    return _once(found, set())


def _record(path: Path) -> dict[str, Any]:
    """What a file says of its making; those of other programs say nothing."""
    try:
        return load(path).record
    except KdpError:
        return {}


def _once(parents: Sequence[Mapping[str, Any]], seen: set[str]) -> list[dict[str, Any]]:
    """Parents in which a file that has come before is only named: chains share their teachers."""
    found = []
    for parent in parents:
        record = dict(parent["record"])
        if parent["sha256"] in seen:
            record = {key: record[key] for key in ("stage", "command") if key in record}
        elif record:
            seen.add(parent["sha256"])
            record["parents"] = _once(record.get("parents", []), seen)
        found.append({**parent, "record": record})
    return found


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
