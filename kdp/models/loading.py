"""Networks out of artifacts and foreign checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kdp.artifacts import Artifact, load
from kdp.errors import KdpError, join_names
from kdp.models import INFER, MODELS, build
from kdp.models.onnx_file import load_onnx
from kdp.models.ultralytics_file import read_ultralytics
from kdp.models.ultralytics_names import from_ultralytics
from kdp.types import Arch


def load_network(path: Path, expected: Arch | None = None) -> tuple[nn.Module, Arch, Artifact]:
    """A network with its weights, in eval mode, and its architecture.

    Args:
        path: an artifact, a foreign checkpoint whose architecture can be inferred, or a YOLO11 of
            Ultralytics (`.pt`).
        expected: the name and arguments a configuration asks for; they must agree.

    Raises:
        KdpError: unreadable, of no known architecture, or not the expected one.
    """
    artifact = read_weights(path)
    if not artifact.params:
        raise KdpError(f"{path} holds no network (it is the output of {_stage(artifact)})")
    arch = artifact.arch or _infer(path, artifact, expected)
    if arch.name not in MODELS:
        raise KdpError(f"{path} holds {arch.name!r}, which this version of kdp does not know")
    _compare(path, arch, expected)
    model = build(arch.name, **arch.args)
    try:
        model.load_state_dict(artifact.params)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise KdpError(f"{path} does not fit {arch.name}: {reason}") from error
    return model.eval(), arch, artifact


def read_weights(path: Path) -> Artifact:
    """Weights of kdp or of another program, Ultralytics included.

    Raises:
        KdpError: unreadable, or holding code.
    """
    try:
        return load(path)
    except KdpError:
        if path.suffix != ".pt" or not path.is_file():
            raise
        params, arch = read_ultralytics(path)
        return Artifact(from_ultralytics(params), arch)


def load_runnable(path: Path) -> tuple[nn.Module, Arch, Artifact]:
    """`load_network`, and of ONNX files too: a network to run and not to train.

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
    found = inferred(artifact.params, names)
    if found is None:
        known = ", ".join(INFER)
        raise KdpError(
            f"{path} was not written by kdp, and its weights are not those of a network that kdp "
            f"knows by its weights ({known}; yolo11 by files of Ultralytics)"
        )
    return found.with_args(**{**(expected.args if expected else {}), **found.args})


def inferred(params: Mapping[str, Tensor], names: Sequence[str] = tuple(INFER)) -> Arch | None:
    """The architecture, one of these, that weights of another program are of, if it can be told."""
    for name in names:
        try:
            args = INFER[name](params) if name in INFER else None
        except (KeyError, ValueError):  # a part that tells a width is not there
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
    for key, wanted in expected.args.items():
        found = arch.args.get(key, defaults[key].default if key in defaults else None)
        if not _agree(found, wanted):
            found, wanted = (_short(value) for value in (found, wanted))
            raise KdpError(f"{path} has {key}={found}, the configuration says {key}={wanted}")


def _short(value: Any) -> Any:
    return (
        f"[{join_names([str(one) for one in value])}]" if isinstance(value, list | tuple) else value
    )


def _agree(found: Any, wanted: Any) -> bool:
    """Whether two arguments are equal; one number stands for as many as the other has."""
    if isinstance(found, (list, tuple)) and isinstance(wanted, (list, tuple)):
        return list(found) == list(wanted)
    if isinstance(found, (list, tuple)):
        return all(value == wanted for value in found)
    if isinstance(wanted, (list, tuple)):
        return all(value == found for value in wanted)
    return bool(found == wanted)
