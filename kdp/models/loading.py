"""Load networks from artifacts and foreign checkpoints."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from inspect import signature
from itertools import takewhile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kdp.artifacts import Artifact, load
from kdp.checksums import DamagedFileError
from kdp.errors import KdpError, join_names
from kdp.finite import first_nonfinite
from kdp.log import log
from kdp.models import INFER, MODELS, NEW_HEADS, build, build_on_meta
from kdp.models.onnx_file import load_onnx
from kdp.models.ultralytics_file import read_ultralytics
from kdp.models.ultralytics_names import from_ultralytics
from kdp.types import Arch


def load_network(path: Path, expected: Arch | None = None) -> tuple[nn.Module, Arch, Artifact]:
    """Load a network in evaluation mode; returns its architecture and the artifact too.

    Args:
        path: an artifact, a foreign checkpoint whose architecture can be inferred, or a YOLO11
            checkpoint of Ultralytics (`.pt`).
        expected: architecture in the configuration; the arguments that it names must match.

    Raises:
        KdpError: the file is unreadable, its architecture is unknown or not the expected one.
    """
    artifact = read_weights(path)
    if not artifact.params:
        raise KdpError(f"{path} holds no network (it is the output of {_stage(artifact)})")
    arch = artifact.arch or _infer(path, artifact, expected)
    if arch.name not in MODELS:
        raise KdpError(f"{path} holds {arch.name!r}, which this version of kdp does not know")
    _compare(path, arch, expected)
    try:
        skeleton = build_on_meta(arch)  # shapes, before memory is taken
    except KdpError as error:
        raise KdpError(f"{path}: {error}") from error
    _load(path, arch, skeleton, artifact.params)
    model = build(arch.name, **arch.args)
    _load(path, arch, model, artifact.params)
    return model.eval(), arch, artifact


def load_start(path: Path, wanted: Arch) -> tuple[nn.Module, Arch]:
    """Load a network to train on, perhaps on other classes than those of its weights.

    With other classes the convolutions that score them start anew, and so do the layers of the head
    whose width depends on their number; everything else is kept.

    Args:
        path: see `load_network`.
        wanted: architecture in the configuration; the arguments that it names must match, but for
            those in `kdp.models.NEW_HEADS`.

    Raises:
        KdpError: see `load_network`.
    """
    head = NEW_HEADS.get(wanted.name)
    if head is None:
        return load_network(path, wanted)[:2]
    fixed = {key: value for key, value in wanted.args.items() if key not in head.free}
    model, arch, _ = load_network(path, Arch(wanted.name, fixed))
    changes = {key: wanted.args[key] for key in head.free if key in wanted.args}
    before, arch = arch.args["classes"], arch.with_args(**changes)
    trained, model = model.state_dict(), build(arch.name, **arch.args)
    if list(before) == list(arch.args["classes"]):
        model.load_state_dict(trained)
        return model.eval(), arch
    kept = _fitting(trained, model.state_dict(), head.scores)
    model.load_state_dict({**model.state_dict(), **kept})
    log.info(
        f"{path} has other classes ({join_names(before)}): {len(trained) - len(kept)} of "
        f"{len(trained)} tensors start anew, in {_parts(trained, kept)}"
    )
    return model.eval(), arch


def _parts(trained: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> str:
    """The modules that hold the tensors that were not kept, with counts.

    Those one level below what all their names have in common: `head.0 (2 of 26), head.1 (2 of 26)`.
    """
    new = [name.split(".") for name in trained if name not in kept]
    # One level at a time: all names agree on it, or it is the first that tells them apart.
    depth = 1 + len(list(takewhile(lambda level: len({*level}) == 1, zip(*new, strict=False))))
    totals = Counter(".".join(name.split(".")[:depth]) for name in trained)
    counts = Counter(".".join(name[:depth]) for name in new)
    return join_names([f"{name} ({n} of {totals[name]})" for name, n in counts.items()])


def _fitting(
    trained: Mapping[str, Tensor], new: Mapping[str, Tensor], scores: str
) -> dict[str, Tensor]:
    """The trained weights that a network of other classes can use."""
    return {
        name: tensor
        for name, tensor in trained.items()
        if tensor.shape == new[name].shape and not re.match(scores, name)
    }


def _load(path: Path, arch: Arch, model: nn.Module, params: Mapping[str, Tensor]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that values are lost on the meta device
            model.load_state_dict(params)
            _check_kinds(path, model.state_dict(), params)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise KdpError(f"{path} does not fit {arch.name}: {reason}") from error


def _check_kinds(path: Path, expected: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> None:
    """torch converts truth values, whole and complex numbers into weights without a word."""
    for name, tensor in expected.items():
        if tensor.is_floating_point() and not params[name].is_floating_point():
            raise KdpError(f"{path} is damaged: {name} holds {params[name].dtype}, not weights")


def read_weights(path: Path) -> Artifact:
    """Read weights of kdp or of another program, Ultralytics included.

    Raises:
        KdpError: the file is unreadable or would execute code.
    """
    try:
        return load(path)
    except DamagedFileError:
        raise
    except KdpError:
        if path.suffix != ".pt" or not path.is_file():
            raise
        params, arch = read_ultralytics(path)
        if name := first_nonfinite(params):
            raise KdpError(f"{path} holds values that are not finite, in {name}") from None
        return Artifact(from_ultralytics(params), arch)


def load_runnable(path: Path) -> tuple[nn.Module, Arch, Artifact]:
    """Load a network for inference only: any file of `load_network`, or an ONNX file.

    Raises:
        KdpError: see `load_network` and `kdp.models.onnx_file.OnnxNetwork`.
    """
    if path.suffix.lower() != ".onnx":
        return load_network(path)
    model, arch, artifact = load_onnx(path)
    if arch.name not in MODELS:
        raise KdpError(f"{path} holds {arch.name!r}, which this version of kdp does not know")
    return model, arch, artifact


def _stage(artifact: Artifact) -> str:
    return f"kdp {artifact.record.stage}" if artifact.record else "another program"


def _infer(path: Path, artifact: Artifact, expected: Arch | None) -> Arch:
    names = [expected.name] if expected else list(INFER)
    arch = inferred(artifact.params, names)
    if arch is None:
        known = ", ".join(INFER)
        raise KdpError(
            f"{path} was not written by kdp, and its weights are not those of a network that kdp "
            f"knows by its weights ({known}; yolo11 by files of Ultralytics)"
        )
    # Inferred arguments win: `_compare` then reports where the configuration disagrees.
    return arch.with_args(**{**(expected.args if expected else {}), **arch.args})


def inferred(params: Mapping[str, Tensor], names: Sequence[str] = tuple(INFER)) -> Arch | None:
    """Infer the architecture of foreign weights, trying the named networks; None if none fits."""
    for name in names:
        try:
            args = INFER[name](params) if name in INFER else None
        except (KeyError, ValueError):  # a tensor that determines a width is missing
            continue
        if args is not None:
            return Arch(name, args)
    return None


def _compare(path: Path, arch: Arch, expected: Arch | None) -> None:
    if expected is None:
        return
    if expected.name != arch.name:
        raise KdpError(f"{path} holds {arch.name}, the configuration says {expected.name}")
    defaults = signature(MODELS[arch.name]).parameters
    for key, value in expected.args.items():
        actual = arch.args.get(key, defaults[key].default if key in defaults else None)
        if not _agree(actual, value):
            raise KdpError(
                f"{path} has {key}={_short(actual)}, the configuration says {key}={_short(value)}"
            )


def _short(value: Any) -> Any:
    return (
        f"[{join_names([str(item) for item in value])}]"
        if isinstance(value, list | tuple)
        else value
    )


def _agree(a: Any, b: Any) -> bool:
    """Whether two arguments are equal; a number equals a list that repeats it."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return list(a) == list(b)
    if isinstance(a, (list, tuple)):
        return all(value == b for value in a)
    if isinstance(b, (list, tuple)):
        return all(value == a for value in b)
    return bool(a == b)
