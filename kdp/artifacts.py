"""The `.pth` files that pass between stages: tensors, plain values and provenance.

`docs/file-formats.md` describes the format.
"""

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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdp import __version__
from kdp.checksums import check_checksums, with_checksum
from kdp.contents import check_types
from kdp.errors import KdpError
from kdp.files import input_path, sha256, why_no_file, write_atomic
from kdp.finite import first_nonfinite
from kdp.removed import REMOVED, check_still_removed
from kdp.sizes import check_archive, check_content
from kdp.tensor_contents import ArtifactContent
from kdp.types import Arch, Parent, Provenance, RunTime

FORMAT, VERSION = "kdp", 2
READABLE = (1, 2)
"""Versions that `load` understands. Version 2 added the optional parts of `Arch`."""
FOREIGN_KEYS = (
    "params_ema",
    "params",
    "state_dict",
    "model_state_dict",
    "generator",
    "model",
    "net",
)
GENERATOR = "generator."
WRAPPERS = ("module.", "_orig_mod.", GENERATOR, "model.", "network.", "net.", "net_g.")
"""Prefixes of names that a training adds: by DistributedDataParallel, `torch.compile`, and modules
that hold the network beside a loss."""
_TORCHSCRIPT = "{} is TorchScript, which kdp writes but does not read"
NUMBERS = ("scores", "parts", "targets")
"""Keys of an artifact, beside `params`, that map names to tensors, which have to be finite."""
TRAINED = ("model", "average", "extra_modules")
"""The same in the state of a training. Moments of an optimizer may overflow without harm."""


@dataclass(frozen=True)
class Artifact:
    """The content of a `.pth` file.

    Attributes:
        params: the state dict; empty in a file of masks or scores.
        arch: of the network, None in a foreign file.
        record: provenance, None in a foreign file.
        extra: further content of the stage (masks, scores, optimizer state).
    """

    params: dict[str, Tensor]
    arch: Arch | None = None
    record: Provenance | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def save(path: Path, artifact: Artifact) -> None:
    """Write an artifact atomically.

    Raises:
        KdpError: a weight, score or target is not finite, or the file cannot be written; the file
            is as it was.
    """
    if name := _nonfinite(artifact):
        raise KdpError(f"{path} was not written: {name} is not finite (NaN or infinite)")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "arch": artifact.arch.plain() if artifact.arch else None,
        "params": {name: tensor.detach().cpu() for name, tensor in artifact.params.items()},
        "record": artifact.record.plain() if artifact.record else {},
        **artifact.extra,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, with_checksum(buffer.getvalue()))


def load(path: Path) -> Artifact:
    """Read an artifact or a foreign checkpoint, on the CPU; nothing but tensors is unpickled.

    Raises:
        KdpError: missing, damaged, not a checkpoint, holding code or numbers that are not finite;
            or a removed unit is not zero.
    """
    artifact = _artifact(path, _read(path))
    if name := _nonfinite(artifact):
        raise KdpError(f"{path} holds values that are not finite (NaN or infinite), in {name}")
    check_still_removed(path, artifact.params, artifact.extra.get(REMOVED))
    return artifact


def _artifact(path: Path, content: dict[str, Any]) -> Artifact:
    if content.get("format") != FORMAT:
        return Artifact(_foreign_params(path, content))
    version = content.get("version")
    if version not in READABLE:
        raise KdpError(
            f"{path} has format version {version}; this kdp reads up to {VERSION}: update kdp"
        )
    keys = {"format", "version", "arch", "params", "record"}
    if not keys <= content.keys():
        missing = ", ".join(sorted(keys - content.keys()))
        raise KdpError(f"{path} is incomplete: it lacks {missing}")
    check_types(path, ArtifactContent, content)
    extra = {key: value for key, value in content.items() if key not in keys}
    arch = Arch.from_plain(content["arch"]) if content["arch"] else None
    record = Provenance.from_plain(content["record"]) if content["record"] else None
    return Artifact(content["params"], arch, record, extra)


def _nonfinite(artifact: Artifact) -> str | None:
    """The first tensor that has to be finite and is not."""
    training = _mapping(artifact.extra.get("training"))
    numbers = {
        "": artifact.params,
        **{key: _mapping(artifact.extra.get(key)) for key in NUMBERS},
        **{key: _mapping(training.get(key)) for key in TRAINED},
        "best": _mapping(_mapping(training.get("best")).get("params")),
    }
    for key, tensors in numbers.items():
        if name := first_nonfinite(tensors):
            return f"{key} {name}".strip()
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _read(path: Path) -> dict[str, Any]:
    source = input_path(path)
    if not source.is_file():
        setting = f"; a setting is changed by --set {path}" if "=" in path.name else ""
        raise KdpError(f"{path} {why_no_file(source)}{setting}")
    try:
        _check_archive(path, source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about TorchScript, which is refused below
            content = torch.load(source, map_location="cpu", weights_only=True)
    except KdpError:
        raise
    except pickle.UnpicklingError as error:
        raise KdpError(f"{path} holds more than tensors (or is no checkpoint): refused") from error
    except PermissionError as error:
        raise KdpError(f"{path} may not be read by this user") from error
    except Exception as error:  # a broken file makes torch raise nearly anything
        if _is_torchscript(source):
            raise KdpError(_TORCHSCRIPT.format(path)) from error
        raise KdpError(f"{path} is truncated or not a checkpoint") from error
    if not isinstance(content, dict):
        raise KdpError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    check_content(path, content, source.stat().st_size)
    return content


def _check_archive(path: Path, source: Path) -> None:
    try:
        check_archive(path, source)
        check_checksums(path, source)
    except KdpError as error:
        if _is_torchscript(source):  # it holds compressed code
            raise KdpError(_TORCHSCRIPT.format(path)) from error
        raise


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("constants.pkl") for name in archive.namelist())
    except Exception:  # a broken archive makes zipfile raise nearly anything
        return False


def _foreign_params(path: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    # A key may be there with nothing in it, as `params_ema` where no average was kept.
    candidates = (content[key] for key in FOREIGN_KEYS if isinstance(content.get(key), Mapping))
    params = next((params for params in candidates if params), None)
    if params is None:
        params = {} if any(key in content for key in FOREIGN_KEYS) else content
    params = {name: value for name, value in params.items() if value is not None}
    if not params:
        raise KdpError(f"{path} holds no weights (looked for {', '.join(FOREIGN_KEYS)})")
    if not all(isinstance(value, Tensor) for value in params.values()):
        raise KdpError(f"{path} holds values that are not tensors where weights should be")
    return _without_wrappers({str(name): tensor for name, tensor in params.items()})


def _without_wrappers(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by their names in the network, which other programs wrap into modules."""
    for wrapper in WRAPPERS:
        inner = {n.removeprefix(wrapper): t for n, t in params.items() if n.startswith(wrapper)}
        # An adversarial training saves its discriminator, too. Numbered layers are a network's own:
        # `model.0.weight`.
        whole = len(inner) == len(params) or wrapper == GENERATOR
        if inner and whole and not any(name[:1].isdigit() for name in inner):
            return _without_wrappers(inner)
    return params


def make_record(
    stage: str,
    config: Mapping[str, Any],
    parents: Sequence[Parent] = (),
    metrics: Mapping[str, Any] | None = None,
    started: float | None = None,
    device: str = "cpu",
    training: Mapping[str, float] | None = None,
) -> Provenance:
    """Provenance of an artifact, with the whole record of each ancestor once.

    Args:
        stage: the subcommand.
        config: the resolved configuration, plain values.
        parents: files this one was made from, see `read_parents`.
        metrics: what was measured of the result.
        started: `time.time()` at the start of the work.
        device: where it ran.
        training: length of the training, see `Provenance`.
    """
    now = time.time()
    return Provenance(
        stage=stage,
        command=" ".join(["kdp", *sys.argv[1:]]),
        config=dict(config),
        seed=config.get("seed"),
        versions={
            "kdp": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        device=device,
        git_commit=_git_commit(),
        parents=_without_repeats(parents, set()),
        metrics=dict(metrics or {}),
        time=RunTime(now, now - started if started else None),
        training=dict(training or {}),
    )


def read_parents(paths: Sequence[Path]) -> tuple[Parent, ...]:
    """What a record says of the files that an artifact is made from.

    Read them where the inputs are read: a file that is replaced during a long stage is not the one
    that its result was made from.

    Raises:
        KdpError: one cannot be read.
    """
    return tuple(_parent(path) for path in paths)


def _parent(path: Path) -> Parent:
    try:
        record = load(path).record
    except KdpError:  # a file of another program has no record; its hash still identifies it
        record = None
    return Parent(str(path), sha256(path), record)


def _without_repeats(parents: Sequence[Parent], visited: set[str]) -> tuple[Parent, ...]:
    """Shorten the record of a file that occurred before: the stages of a chain share a teacher,
    and whole records at every occurrence would double the file with each stage."""
    unique = []
    for parent in parents:
        record = parent.record
        if record and parent.sha256 in visited:
            record = Provenance(record.stage, record.command)
        elif record:
            visited.add(parent.sha256)
            record = replace(record, parents=_without_repeats(record.parents, visited))
        unique.append(replace(parent, record=record))
    return tuple(unique)


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return git.stdout.strip() or None
