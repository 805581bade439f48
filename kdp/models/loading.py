"""Networks out of artifacts and foreign checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from kdp.artifacts import Artifact, load
from kdp.errors import KdpError
from kdp.models import INFER, build

Arch = dict[str, Any]


def load_network(path: Path, expected: Arch | None = None) -> tuple[nn.Module, Arch, Artifact]:
    """A network with its weights, in eval mode, and its architecture.

    Args:
        path: an artifact, or a foreign checkpoint whose architecture can be inferred.
        expected: the name and arguments a configuration asks for; they must agree.

    Raises:
        KdpError: unreadable, of no known architecture, or not the expected one.
    """
    artifact = load(path)
    if not artifact.params:
        raise KdpError(f"{path} holds no network (it is the output of {_stage(artifact)})")
    arch = artifact.arch or _infer(path, artifact, expected)
    _compare(path, arch, expected)
    model = build(arch["name"], **arch["args"])
    try:
        model.load_state_dict(artifact.params)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise KdpError(f"{path} does not fit {arch['name']}: {reason}") from error
    return model.eval(), arch, artifact


def _stage(artifact: Artifact) -> str:
    return f"kdp {artifact.record['stage']}" if "stage" in artifact.record else "another program"


def _infer(path: Path, artifact: Artifact, expected: Arch | None) -> Arch:
    names = [expected["name"]] if expected else list(INFER)
    for name in names:
        args = INFER[name](artifact.params) if name in INFER else None
        if args is not None:
            return {"name": name, "args": args}
    raise KdpError(f"{path}: the weights are of no architecture kdp knows ({', '.join(names)})")


def _compare(path: Path, arch: Arch, expected: Arch | None) -> None:
    if expected is None:
        return
    if expected["name"] != arch["name"]:
        raise KdpError(f"{path} holds {arch['name']}, the configuration says {expected['name']}")
    for key, value in expected["args"].items():
        if key in arch["args"] and arch["args"][key] != value:
            raise KdpError(
                f"{path} has {key}={arch['args'][key]}, the configuration says {key}={value}"
            )
