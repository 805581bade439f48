"""`kdp reproduce`: predict again with the network of an experiment, and compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from kdp.config.compose import load_config
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.files import read_regular, sha256
from kdp.models.loading import load_network
from kdp.serialize import csv_of_mappings
from kdp.stages.experiments.list import find_experiment
from kdp.stages.experiments.results import (
    CHECKPOINT,
    CONFIG,
    MAX_TABLE,
    PREDICTIONS,
    read_info,
)
from kdp.stages.replacing import OTHER_OUTPUT, check_targets
from kdp.tasks import task_for
from kdp.written import write_output


@dataclass(frozen=True)
class Reproduction:
    """New predictions against the recorded ones.

    Attributes:
        path: the experiment.
        rows: how many predictions there are.
        different: how many are not the same, byte for byte.
        devices: where the recorded predictions were computed, and the new ones.
    """

    path: Path
    rows: int
    different: int
    devices: tuple[str, str]

    @property
    def summary(self) -> str:
        """The result in one line."""
        if not self.different:
            return f"{self.rows} predictions, byte for byte those in {self.path / PREDICTIONS}"
        line = f"{self.different} of {self.rows} rows differ from {self.path / PREDICTIONS}"
        before, now = self.devices
        return line if before == now else f"{line} (recorded on {before}, computed now on {now})"


def reproduce(
    experiment: str,
    folder: Path,
    target: Path | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> Reproduction:
    """Predict again with the recorded network and compare with the recorded predictions.

    Args:
        experiment: an id in `folder`, or the path of an experiment's own folder.
        folder: of the experiments.
        target: file for the new predictions.
        device: where to predict, None for the recorded device.
        overwrite: replace a file that kdp did not write, too.

    Raises:
        KdpError: the experiment is incomplete, its network was changed, or its data or device is
            missing; or `target` may not be replaced.
    """
    check_targets([target] if target else [], overwrite, OTHER_OUTPUT)
    path = Path(experiment) if Path(experiment).is_dir() else find_experiment(folder, experiment)
    info = read_info(path)
    _check_network(path, info)
    devices = (info["device"], device or info["device"])
    table = _predict(path, info, devices[1]).encode()
    if target is not None:
        write_output(target, table)
    different = _different(table, _renamed(read_regular(path / PREDICTIONS, MAX_TABLE)))
    return Reproduction(path, table.count(b"\n") - 1, different, devices)


def _check_network(path: Path, info: dict[str, Any]) -> None:
    digest = sha256(path / CHECKPOINT)
    if digest != info["sha256"]:
        raise KdpError(
            f"{path / CHECKPOINT} was changed: its SHA-256 is {digest[:12]}..., recorded was "
            f"{info['sha256'][:12]}...; restore the file"
        )


def _predict(path: Path, info: dict[str, Any], device: str) -> str:
    config = load_config(path / CONFIG)
    model, arch, _ = load_network(path / CHECKPOINT)
    with _threads(info["threads"]):
        return csv_of_mappings(task_for(arch, config).predictions(model.to(pick_device(device))))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with the recorded number: it decides the order of sums, and so their last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _renamed(table: bytes) -> bytes:
    """A recorded table, with the column that older versions called `found` under its new name."""
    header, newline, rows = table.partition(b"\n")
    return header.replace(b",found,", b",predicted,") + newline + rows


def _different(new: bytes, old: bytes) -> int:
    """How many rows differ; all of them if the columns do."""
    lines = [table.splitlines(keepends=True) for table in (new, old)]
    differ = [new_line != old_line for new_line, old_line in zip_longest(*lines)]
    return max(len(differ) - 1, 1) if differ[0] else sum(differ)
