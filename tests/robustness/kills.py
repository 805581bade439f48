"""Stages that are killed before a file operation: no torn file, no mixed files, no litter."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import torch

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.models.loading import load_network
from tests.conftest import same_params
from tests.robustness.cases import Folders, environment
from tests.robustness.client import Kdp, Result, faults

CONFIG = ("--config", "config.yml")
ROUNDS = "rounds=[{pruning_ratio: 0.3, steps: 1}, {pruning_ratio: 0.3, steps: 2}]"


@dataclass(frozen=True)
class Stage:
    """A command that is killed.

    Attributes:
        command: its arguments.
        again: added to run it again after it was killed; each is tried until one succeeds.
        result: the network that it writes.
    """

    command: Sequence[str]
    again: Sequence[Sequence[str]] = (("--resume",), ("--overwrite",))
    result: str = ""


STAGES = {
    "train": Stage(("train", *CONFIG, "train.steps=3", "--overwrite"), result="weights/tiny.pth"),
    "prune": Stage(("prune", *CONFIG, "prune.criterion=random"), result="weights/tiny_pruned.pth"),
    "taylor": Stage(("prune", *CONFIG, "prune.criterion=taylor"), result="weights/tiny_pruned.pth"),
    "finetune": Stage(
        ("finetune", *CONFIG, "finetune.steps=3", "--overwrite"),
        result="weights/tiny_finetuned_logits.pth",
    ),
    "rebuild": Stage(
        ("rebuild", *CONFIG, "--overwrite"), ((), ("--overwrite",)), "weights/tiny_rebuilt.pth"
    ),
    "rounds": Stage(("prune", *CONFIG, ROUNDS, "~pruning_ratio")),
    "cache-targets": Stage(("cache-targets", *CONFIG, "-o", "targets"), ((), ("--overwrite",))),
    "export": Stage(
        ("export", "weights/tiny_rebuilt.pth", "-o", "network.onnx", "--overwrite"),
        ((), ("--overwrite",)),
    ),
}
CHAINED = ("train", "prune", "taylor", "finetune")
"""Stages after which `rebuild` could combine their files with older ones."""


def run(kdp: Kdp, random: Random, folders: Folders) -> tuple[Sequence[str], Sequence[str]]:
    """Kill a stage over a finished chain, look at the files, rebuild, run it again."""
    name = random.choice(list(STAGES))
    stage = STAGES[name]
    reference, operations = _reference(kdp, name, folders.base)
    folder = folders.work
    shutil.copytree(folders.base / "chain", folder, dirs_exist_ok=True)
    kill_at = random.randrange(1, operations + 1)
    killed = kdp.run(stage.command, folder, environment(folders), kill_at)
    problems = [] if killed.code == -9 else [f"it was not killed: {killed.stderr[-200:]!r}"]
    problems += torn(folder)
    if name in CHAINED:
        problems += _mixed(kdp, folders)
    problems += faults(again := _again(kdp, stage, folders))
    if again.code != 0:
        problems.append(f"it cannot be run again: {again.stderr[-200:]!r}")
    if litter := sorted(_names(folder) - _names(reference)):
        problems.append(f"litter: {', '.join(litter)}")
    if stage.result and not same_weights(folder / stage.result, reference / stage.result):
        problems.append(f"another result: {stage.result}")
    return (*stage.command, f"killed at {kill_at} of {operations}"), problems


@cache
def _reference(kdp: Kdp, name: str, base: Path) -> tuple[Path, int]:
    """The folder after the stage ran undisturbed, and its file operations."""
    folder = base / f"after-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base / "chain", folder)
    done = kdp.run(STAGES[name].command, folder)
    assert done.code == 0, done.stderr
    return folder, done.operations


def _again(kdp: Kdp, stage: Stage, folders: Folders) -> Result:
    command = [part for part in stage.command if part != "--overwrite"]
    for options in stage.again:
        result = kdp.run([*command, *options], folders.work, environment(folders))
        if result.code == 0:
            break
    return result


def torn(folder: Path) -> list[str]:
    """Files under their final name that cannot be read whole; hidden ones are litter at most."""
    problems = []
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            if path.suffix == ".pth":
                load(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
        except (KdpError, ValueError) as error:
            problems.append(f"torn: {path.name}: {error}")
    return problems


def _mixed(kdp: Kdp, folders: Folders) -> list[str]:
    """`rebuild` refuses what a killed stage has left, or writes the network that it names."""
    command = ("rebuild", *CONFIG, "~experiments", "-o", "mixed.pth")
    result = kdp.run(command, folders.work, environment(folders))
    problems = faults(result)
    rebuilt = folders.work / "mixed.pth"
    if result.code == 0:
        named = re.findall(r"network (\S+\.pth)$", result.stderr, re.MULTILINE)
        source = folders.work / (named or ["weights/tiny_finetuned_logits.pth"])[-1]
        if not _equal_outputs(source, rebuilt):
            problems.append(f"mixed: the rebuilt network differs from {source.name}")
    rebuilt.unlink(missing_ok=True)
    return problems


def _equal_outputs(first: Path, second: Path) -> bool:
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = [load_network(path)[0](images) for path in (first, second)]
    return torch.allclose(*outputs, atol=1e-4)


def same_weights(first: Path, second: Path) -> bool:
    """Whether two files can be read and hold exactly the same weights."""
    try:
        a, b = load(first).params, load(second).params
    except KdpError:
        return False
    return same_params(a, b)


def _names(folder: Path) -> set[str]:
    """Names of all files and folders, without the times in names of experiments."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {re.sub(r"\d{8}-\d{6}(-\d+)?", "TIME", name) for name in names}
