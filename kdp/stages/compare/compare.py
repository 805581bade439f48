"""`kdp compare`: quality, size and speed of several networks, beside one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from kdp.config import Config
from kdp.data.images import png_bytes
from kdp.devices import pick_device
from kdp.files import input_path
from kdp.finite import outputs_finite
from kdp.measure.complexity import (
    COUNTER,
    count_macs,
    count_module_macs,
    count_parameters,
    parameters,
    thop_version,
)
from kdp.measure.latency import Latency, device_name, latencies
from kdp.measure.precision import HalfPrecision, weight_bytes
from kdp.models import build_on_meta
from kdp.models.onnx_file import OnnxNetwork
from kdp.progress import progress
from kdp.stages.compare.networks import (
    LoadedNetwork,
    also_in_half,
    check_fixed_sizes,
    check_sizes,
    common_task,
    load_networks,
)
from kdp.stages.deployed import deployed
from kdp.tasks.base import EvaluationTask, Metrics, Task
from kdp.text import file_name
from kdp.types import Arch
from kdp.written import write_output


@dataclass(frozen=True)
class EvaluatedNetwork:
    """The quality of one file: one column of the table.

    Attributes:
        label: short and unique among the files.
        path: the file.
        arch: name and arguments of its network.
        stage: the subcommand that wrote it, None for a foreign file.
        quality: metrics by evaluation set.
        precision: of parameters and products, in words.
    """

    label: str
    path: Path
    arch: Arch
    stage: str | None
    quality: dict[str, Metrics]
    precision: str


@dataclass(frozen=True)
class MeasuredNetwork(EvaluatedNetwork):
    """All measurements of one file.

    Attributes:
        parameters, nonzero: how many there are, and how many are not 0.
        macs, module_macs: of one input of `Comparison.input_shape`, by either counter.
        file_bytes: size on disk.
        latency: of one input of `Comparison.latency_shape`, in milliseconds.
        weight_bytes: size of the parameters in this precision.
        deployed_parameters: how many there are without removed units, fused.
    """

    parameters: int
    nonzero: int
    macs: int
    module_macs: int
    file_bytes: int
    latency: Latency
    weight_bytes: float
    deployed_parameters: int


@dataclass(frozen=True)
class Evaluation:
    """The quality of several networks, and how it was measured.

    Attributes:
        columns: one per file; the others are related to the first.
        protocol: how quality is measured.
        samples: how many samples each evaluation set has.
    """

    columns: Sequence[EvaluatedNetwork]
    protocol: str
    samples: dict[str, int]


@dataclass(frozen=True)
class Comparison(Evaluation):
    """Measurements of several networks, and how they were taken.

    Attributes:
        counter, module_counter: what counted `macs` and `module_macs`.
        input_shape, latency_shape: of the input that MACs and latency are for.
        warmup: forward passes before the clock starts.
        device: on which latency was measured.
        earlier: stage -> metrics by evaluation set after that stage, for each column; its own
            quality where a network did not go through the stage.
    """

    columns: Sequence[MeasuredNetwork]
    counter: str
    module_counter: str
    input_shape: tuple[int, ...]
    latency_shape: tuple[int, ...]
    warmup: int
    device: str
    earlier: Mapping[str, Sequence[dict[str, Metrics]]] = field(default_factory=dict)


def evaluate(paths: Sequence[Path], config: Config) -> Evaluation:
    """Measure the quality of every file the same way, and nothing else.

    Args:
        paths: see `compare`.
        config: `evaluation`, `tiles` and `device` are read.

    Raises:
        KdpError: as `compare` does.
    """
    networks = load_networks(paths, pick_device(config.device))
    task = common_task(networks, config)
    samples = {name: len(members) for name, members in task.evaluation_sets.items()}
    columns = [
        EvaluatedNetwork(**_identity(network, quality))
        for network, quality in zip(networks, _qualities(task, networks), strict=True)
    ]
    return Evaluation(columns, task.metric_protocol, samples)


def compare(
    paths: Sequence[Path], config: Config, images: Path | None = None, half: bool = False
) -> Comparison:
    """Measure every file the same way.

    Args:
        paths: artifacts, foreign checkpoints or exported ONNX files, of one task and scale.
        config: `evaluation`, `measure`, `tiles` and `device` are read.
        images: folder to write side-by-side images into.
        half: measure every network in half precision too, except ONNX files.

    Raises:
        KdpError: a file cannot be read or holds no network; its quality is measured in another way
            than that of the first; the device or the evaluation data is missing.
    """
    device, module_counter = pick_device(config.device), thop_version()
    networks = load_networks(paths, device)
    task = common_task(networks, config)
    measure = config.measure
    example, timed = task.example(task.input_size), task.example(task.latency_size)
    if half:
        networks = also_in_half(networks, example.to(device))
    # Data and input sizes are checked before minutes go into evaluation.
    samples = {name: len(members) for name, members in task.evaluation_sets.items()}
    check_fixed_sizes(networks, timed)
    check_sizes(networks, [example, timed])
    quality = _qualities(task, networks)
    # All networks in one call: they are timed in turn, so that a drifting machine hits all alike.
    times = latencies(
        [network.model for network in networks], timed, measure.warmup_runs, measure.latency_runs
    )
    deployed_counts = _deployed_counts(networks, task)
    columns = [
        _column(network, deployed_counts[network.path], example, metrics, latency)
        for network, metrics, latency in zip(networks, quality, times, strict=True)
    ]
    if images is not None:
        _write_images(task, networks, images, sum(samples.values()))
    return Comparison(
        columns=columns,
        protocol=task.metric_protocol,
        samples=samples,
        counter=COUNTER,
        module_counter=module_counter,
        input_shape=tuple(example.shape),
        latency_shape=tuple(timed.shape),
        warmup=measure.warmup_runs,
        device=device_name(device),
    )


def _deployed_counts(networks: Sequence[LoadedNetwork], task: Task) -> dict[Path, int]:
    """Deployed parameters by file: one count for a network and its column in half precision."""
    whole = [network for network in networks if not isinstance(network.model, HalfPrecision)]
    return {network.path: _deployed_parameters(network, task) for network in whole}


def _qualities(task: EvaluationTask, networks: Sequence[LoadedNetwork]) -> list[dict[str, Metrics]]:
    """Metrics of every network by evaluation set, with a progress bar of the samples."""
    total = sum(len(samples) for samples in task.evaluation_sets.values())
    with ExitStack() as checks, progress("evaluate", total) as advance:
        for network in networks:
            name = f"{network.path} ({network.precision})"
            checks.enter_context(outputs_finite(network.model, name))
        return task.evaluate_all([network.model for network in networks], advance)


def _column(
    network: LoadedNetwork,
    deployed_parameters: int,
    example: Tensor,
    quality: dict[str, Metrics],
    latency: Latency,
) -> MeasuredNetwork:
    shapes, meta = build_on_meta(network.arch), example.to("meta")
    model = network.model
    total, nonzero = model.counts if isinstance(model, OnnxNetwork) else parameters(model)
    return MeasuredNetwork(
        **_identity(network, quality),
        parameters=total,
        nonzero=nonzero,
        macs=count_macs(shapes, meta),
        module_macs=count_module_macs(shapes, meta)[0],
        file_bytes=input_path(network.path).stat().st_size,
        latency=latency,
        weight_bytes=weight_bytes(model),
        deployed_parameters=deployed_parameters,
    )


def _deployed_parameters(network: LoadedNetwork, task: Task) -> int:
    if isinstance(network.model, OnnxNetwork):
        return network.model.counts[0]
    return count_parameters(deployed(network.model, network.arch, network.artifact, task)[0])


def _identity(network: LoadedNetwork, quality: dict[str, Metrics]) -> dict[str, Any]:
    """The attributes of an `EvaluatedNetwork`."""
    record = network.artifact.record
    return {
        "label": network.label,
        "path": network.path,
        "arch": network.arch,
        "stage": record.stage if record else None,
        "quality": quality,
        "precision": network.precision,
    }


def _write_images(
    task: EvaluationTask, networks: Sequence[LoadedNetwork], folder: Path, total: int
) -> None:
    models, labels = [n.model for n in networks], [n.label for n in networks]
    counts = Counter[str]()
    with progress("images", total) as advance:
        for name, image in task.comparison_images(models, labels):
            stem = file_name(name)
            counts[stem] += 1
            number = f"_{counts[stem]}" if counts[stem] > 1 else ""
            write_output(folder / f"{stem}{number}.png", png_bytes(image))
            advance(note=name)
