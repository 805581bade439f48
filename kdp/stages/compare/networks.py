"""The networks of a comparison: loaded, and checked to be comparable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact
from kdp.config import Config
from kdp.errors import KdpError
from kdp.files import real_path, sha256
from kdp.log import log
from kdp.measure.complexity import run_checked
from kdp.measure.precision import HalfPrecision
from kdp.models import build_on_meta
from kdp.models.loading import load_runnable
from kdp.models.onnx_file import OnnxNetwork
from kdp.pruning.identity import MasksIdentity, network_digest
from kdp.stages.compare.labels import short_labels
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.types import Arch, Parent, Provenance


@dataclass(frozen=True)
class LoadedNetwork:
    """A network on its device, and the file that it is from.

    Attributes:
        label: short and unique among the files.
        path: the file.
        model: the network; of a half-precision column, wrapped in `HalfPrecision`.
        arch: name and arguments of the network.
        artifact: the content of the file.
        precision: of parameters and products, in words.
    """

    label: str
    path: Path
    model: nn.Module
    arch: Arch
    artifact: Artifact
    precision: str


def load_networks(paths: Sequence[Path], device: torch.device) -> list[LoadedNetwork]:
    """Read every file; warn of one that was made from another version of a file beside it.

    Raises:
        KdpError: a file cannot be read or holds no network, or the device cannot run it.
    """
    networks = []
    for label, path in zip(short_labels(paths), paths, strict=True):
        model, arch, artifact = load_runnable(path)
        if isinstance(model, OnnxNetwork) and device.type != "cpu":
            raise KdpError(f"{path}: ONNX files run on the CPU only; compare with --device cpu")
        precision = model.precision if isinstance(model, OnnxNetwork) else "fp32"
        networks.append(LoadedNetwork(label, path, model.to(device), arch, artifact, precision))
    _log_stale(networks)
    _log_other_origins(networks)
    return networks


def _log_stale(networks: Sequence[LoadedNetwork]) -> None:
    """Warn of a file that was made from an earlier version of another one of them."""
    hashes = {real_path(network.path): sha256(network.path) for network in networks}
    for network in networks:
        used = {(p.path, p.sha256) for p in _ancestors(network.artifact.record)}
        for path, digest in sorted(used):
            current = hashes.get(real_path(Path(path)), digest)
            if current != digest:
                log.warning(
                    f"{network.path} was made from another {path} ({digest[:12]}) "
                    f"than the one compared here ({current[:12]})"
                )


def _log_other_origins(networks: Sequence[LoadedNetwork]) -> None:
    """Say where a network was pruned from another one than the unpruned one beside it.

    Ratios to a network of another seed, or of another chain, are not the cost of pruning.
    """
    hashes = {sha256(network.path) for network in networks}
    unpruned = [n for n in networks if n.artifact.record and not _pruned_from(n.artifact.record)]
    for network in networks:
        origin = _pruned_from(network.artifact.record)
        others = [n for n in unpruned if n.arch.name == network.arch.name]
        if origin is None or origin.sha256 in hashes or not others:
            continue
        digest = MasksIdentity.of(network.artifact).network
        if digest not in [network_digest(n.artifact.params) for n in others]:
            log.warning(
                f"{network.path} was pruned from {origin.path} ({origin.sha256[:12]}), which is "
                f"not compared here: {others[0].path} is another network"
            )


def _pruned_from(record: Provenance | None) -> Parent | None:
    """The network that pruning began with; None where nothing says that there was one."""
    if record is None:
        return None
    inner = next(filter(None, (_pruned_from(p.record) for p in record.parents)), None)
    return inner or (record.parents[0] if record.stage == "prune" and record.parents else None)


def _ancestors(record: Provenance | None) -> Iterator[Parent]:
    for parent in record.parents if record else ():
        yield parent
        yield from _ancestors(parent.record)


def also_in_half(networks: Sequence[LoadedNetwork], example: Tensor) -> list[LoadedNetwork]:
    """Every network, and after each network the same in half precision."""
    both = []
    for network in networks:
        both.append(network)
        if not isinstance(network.model, OnnxNetwork):
            model, label = HalfPrecision(network.model, example), f"{network.label}_half"
            both.append(replace(network, label=label, model=model, precision=model.about))
    return both


def common_task(networks: Sequence[LoadedNetwork], config: Config) -> Task:
    """The task of all networks.

    Raises:
        KdpError: their quality is measured in different ways, or their classes differ.
    """
    tasks = [task_for(network.arch, config) for network in networks]
    for network, task in zip(networks, tasks, strict=True):
        if task.metric_protocol != tasks[0].metric_protocol:
            raise KdpError(
                f"cannot compare {network.path} ({task.metric_protocol}) with {networks[0].path} "
                f"({tasks[0].metric_protocol}): they solve different tasks"
            )
        classes, first = task.classes, tasks[0].classes
        if classes != first:
            raise KdpError(
                f"cannot compare {network.path} (classes {', '.join(classes)}) with "
                f"{networks[0].path} (classes {', '.join(first)})"
            )
    return tasks[0]


def check_fixed_sizes(networks: Sequence[LoadedNetwork], timed: Tensor) -> None:
    """Make sure that networks that were exported for one size are timed at that size.

    Raises:
        KdpError: one is not.
    """
    for network in networks:
        size = network.model.fixed_size if isinstance(network.model, OnnxNetwork) else None
        if size and size != tuple(timed.shape[2:]):
            height, width = size
            raise KdpError(
                f"{network.path} was exported for {height}x{width} only: compare with "
                f"--set measure.latency_size=[{height},{width}]"
            )


def check_sizes(networks: Sequence[LoadedNetwork], inputs: Sequence[Tensor]) -> None:
    """Run every network on the meta device, before minutes are spent on evaluation.

    Raises:
        KdpError: a network cannot read inputs of these sizes.
    """
    for network in networks:
        shapes = build_on_meta(network.arch)
        for example in inputs:
            run_checked(shapes, example.to("meta"))
