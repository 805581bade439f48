"""`kdp compare`: quality, size and speed of several networks, beside one another."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact
from kdp.config import Config
from kdp.config.compose import load_config
from kdp.data.images import png_bytes
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.files import input_path, write_atomic
from kdp.measure.complexity import (
    COUNTER,
    build_on_meta,
    count_macs,
    count_module_macs,
    parameters,
    run_checked,
    thop_version,
)
from kdp.measure.latency import Latency, device_name, latencies
from kdp.measure.precision import HalfPrecision, weight_bytes
from kdp.models.loading import load_runnable
from kdp.models.onnx_file import OnnxNetwork
from kdp.progress import progress
from kdp.tasks import task_for
from kdp.tasks.base import Metrics, Task
from kdp.types import Arch


@dataclass(frozen=True)
class Column:
    """What was measured of one file.

    Attributes:
        label: short and unique among the files.
        path: the file.
        arch: name and arguments of its network.
        stage: the subcommand that wrote it, None for a foreign file.
        quality: metrics by evaluation set.
        parameters, nonzero: how many there are, and how many are not 0.
        macs, module_macs: of one input of `Comparison.input_shape`, by either counter.
        file_bytes: size on disk.
        latency: of one input of `Comparison.latency_shape`, in milliseconds.
        weight_bytes: what the parameters take in this precision.
        precision: of parameters and products, in words.
    """

    label: str
    path: Path
    arch: Arch
    stage: str | None
    quality: dict[str, Metrics]
    parameters: int
    nonzero: int
    macs: int
    module_macs: int
    file_bytes: int
    latency: Latency
    weight_bytes: float
    precision: str


@dataclass(frozen=True)
class Comparison:
    """Columns, and how they were measured.

    Attributes:
        columns: one per file; the first is what the others are related to.
        protocol: how quality is measured.
        samples: how many samples each evaluation set has.
        counter, module_counter: what counted `macs` and `module_macs`.
        input_shape, latency_shape: of the input that MACs and latency are for.
        warmup: forward passes before the clock starts.
        device: where latency was taken.
    """

    columns: list[Column]
    protocol: str
    samples: dict[str, int]
    counter: str
    module_counter: str
    input_shape: tuple[int, ...]
    latency_shape: tuple[int, ...]
    warmup: int
    device: str


@dataclass(frozen=True)
class _Loaded:
    label: str
    path: Path
    model: nn.Module
    arch: Arch
    artifact: Artifact
    precision: str


def settings(config: Path | None, overrides: Sequence[str], device: str | None) -> Config:
    """The configuration of a comparison; without a file, the schema's own defaults.

    Raises:
        KdpError: the file is missing, or a key or value does not fit the schema.
    """
    chosen = [*overrides, *([f"device={device}"] if device else [])]
    if config is not None:
        return load_config(config, chosen)
    with tempfile.TemporaryDirectory() as folder:
        defaults = Path(folder) / "compare.yml"
        defaults.write_text("output: {name: compare}\n")
        try:
            return load_config(defaults, chosen)
        except KdpError as error:
            raise KdpError(str(error).replace(str(defaults), "--set")) from error


def compare(
    paths: Sequence[Path], config: Config, images: Path | None = None, half: bool = False
) -> Comparison:
    """Measure every file the same way.

    Args:
        paths: artifacts, foreign checkpoints or exported ONNX files, of one task and scale.
        config: `evaluation`, `measure`, `tiles` and `device` are read.
        images: folder to write side-by-side pictures into.
        half: measure every network that is no ONNX file in half precision as well, beside itself.

    Raises:
        KdpError: a file cannot be read, holds no network, or is judged in another way than the
            first; the device is not there; the evaluation data cannot be read.
    """
    device, module_counter = pick_device(config.device), thop_version()
    entries = _load(paths, device)
    task = _common_task(entries, config)
    measure = config.measure
    example, timed = task.example(task.input_size), task.example(task.latency_size)
    if half:
        entries = _also_in_half(entries, example.to(device))
    samples = {name: len(members) for name, members in task.evaluation_sets.items()}
    _check_fixed_sizes(entries, timed)
    _check_sizes(entries, [example, timed])
    quality = _qualities(entries, config, samples)
    times = latencies(
        [entry.model for entry in entries], timed, measure.warmup_runs, measure.latency_runs
    )
    columns = [
        _column(entry, example, metrics, latency)
        for entry, metrics, latency in zip(entries, quality, times, strict=True)
    ]
    if images is not None:
        _write_images(task, entries, images, sum(samples.values()))
    return Comparison(
        columns=columns,
        protocol=task.protocol,
        samples=samples,
        counter=COUNTER,
        module_counter=module_counter,
        input_shape=tuple(example.shape),
        latency_shape=tuple(timed.shape),
        warmup=measure.warmup_runs,
        device=device_name(device),
    )


def short_names(paths: Sequence[Path]) -> list[str]:
    """Unique names of files: stems without the words they all begin with, numbered if equal."""
    words = [path.stem.split("_") for path in paths]
    if len({path.stem for path in paths}) > 1:
        while len({own[0] for own in words}) == 1 and all(len(own) > 1 for own in words):
            words = [own[1:] for own in words]
    names = ["_".join(own) for own in words]
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[i] = f"{name}_{seen[name]}"
    return names


def _load(paths: Sequence[Path], device: torch.device) -> list[_Loaded]:
    entries = []
    for label, path in zip(short_names(paths), paths, strict=True):
        model, arch, artifact = load_runnable(path)
        if isinstance(model, OnnxNetwork) and device.type != "cpu":
            raise KdpError(f"{path} runs on the CPU alone: compare with --device cpu")
        precision = model.precision if isinstance(model, OnnxNetwork) else "fp32"
        entries.append(_Loaded(label, path, model.to(device), arch, artifact, precision))
    return entries


def _also_in_half(entries: Sequence[_Loaded], example: Tensor) -> list[_Loaded]:
    """Every entry, and after each network the same in half precision."""
    both = []
    for entry in entries:
        both.append(entry)
        if not isinstance(entry.model, OnnxNetwork):
            model, label = HalfPrecision(entry.model, example), f"{entry.label}_half"
            both.append(replace(entry, label=label, model=model, precision=model.about))
    return both


def _common_task(entries: Sequence[_Loaded], config: Config) -> Task:
    tasks = [task_for(entry.arch, config) for entry in entries]
    for entry, task in zip(entries, tasks, strict=True):
        if task.protocol != tasks[0].protocol:
            raise KdpError(
                f"cannot compare {entry.path} ({task.protocol}) with {entries[0].path} "
                f"({tasks[0].protocol}): they solve different tasks"
            )
        theirs, first = (getattr(one, "classes", ()) for one in (task, tasks[0]))
        if theirs != first:
            raise KdpError(
                f"cannot compare {entry.path} (classes {', '.join(theirs)}) with "
                f"{entries[0].path} (classes {', '.join(first)})"
            )
    return tasks[0]


def _check_fixed_sizes(entries: Sequence[_Loaded], timed: Tensor) -> None:
    for entry in entries:
        size = entry.model.fixed_size if isinstance(entry.model, OnnxNetwork) else None
        if size and size != tuple(timed.shape[2:]):
            height, width = size
            raise KdpError(
                f"{entry.path} takes {height}x{width} alone: compare with "
                f"--set measure.latency_size=[{height},{width}]"
            )


def _check_sizes(entries: Sequence[_Loaded], inputs: Sequence[Tensor]) -> None:
    """Whether every network can read inputs of these sizes."""
    for entry in entries:
        for one in inputs:
            run_checked(build_on_meta(entry.arch), one.to("meta"))


def _qualities(
    entries: Sequence[_Loaded], config: Config, samples: dict[str, int]
) -> list[dict[str, Metrics]]:
    """Metrics of every network, set by set so that progress shows."""
    results: list[dict[str, Metrics]] = [{} for _ in entries]
    with progress("evaluate", sum(samples.values()) * len(entries)) as advance:
        for name, section in config.evaluation.items():
            one = config.model_copy(update={"evaluation": {name: section}})
            task = task_for(entries[0].arch, one)
            for entry, result in zip(entries, results, strict=True):
                advance(0, note=f"{entry.label} on {name}")
                result.update(task.evaluate(entry.model))
                advance(samples[name])
    return results


def _column(
    entry: _Loaded, example: Tensor, quality: dict[str, Metrics], latency: Latency
) -> Column:
    shapes, meta = build_on_meta(entry.arch), example.to("meta")
    model = entry.model
    total, nonzero = model.counts if isinstance(model, OnnxNetwork) else parameters(model)
    record = entry.artifact.record
    return Column(
        label=entry.label,
        path=entry.path,
        arch=entry.arch,
        stage=record.stage if record else None,
        quality=quality,
        parameters=total,
        nonzero=nonzero,
        macs=count_macs(shapes, meta),
        module_macs=count_module_macs(shapes, meta)[0],
        file_bytes=input_path(entry.path).stat().st_size,
        latency=latency,
        weight_bytes=weight_bytes(model),
        precision=entry.precision,
    )


def _write_images(task: Task, entries: Sequence[_Loaded], folder: Path, total: int) -> None:
    models, labels = [e.model for e in entries], [e.label for e in entries]
    with progress("pictures", total) as advance:
        for name, image in task.comparison_images(models, labels):
            write_atomic(folder / f"{name}.png", png_bytes(image))
            advance(note=name)
