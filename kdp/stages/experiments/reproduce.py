"""`kdp evaluate`: predict again with the network of an experiment, and compare."""

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
from kdp.files import sha256, write_atomic
from kdp.models.loading import load_network
from kdp.serialize import csv_of_mappings
from kdp.stages.experiments.list import find, read_info
from kdp.stages.experiments.store import CHECKPOINT, CONFIG, PREDICTIONS
from kdp.tasks import task_for


@dataclass(frozen=True)
class Evaluation:
    """New predictions against those that were kept.

    Attributes:
        path: the experiment.
        rows: how many predictions there are.
        different: how many are not byte for byte as they were.
        devices: where the old ones were made, and the new ones.
    """

    path: Path
    rows: int
    different: int
    devices: tuple[str, str]

    @property
    def summary(self) -> str:
        """In one line."""
        if not self.different:
            return f"{self.rows} predictions, byte for byte those of {self.path / PREDICTIONS}"
        line = f"{self.different} of {self.rows} rows differ from {self.path / PREDICTIONS}"
        before, now = self.devices
        return line if before == now else f"{line} (made on {before}, now on {now})"


def evaluate(
    run: str, folder: Path, target: Path | None = None, device: str | None = None
) -> Evaluation:
    """Predict again.

    Args:
        run: an experiment's id in `folder`, or a folder of its own.
        folder: of the experiments.
        target: file for the new predictions.
        device: where to predict; None: where it was done before.

    Raises:
        KdpError: the experiment is not whole, its network is not the one that was kept, or its
            data or device is not here.
    """
    path = Path(run) if Path(run).is_dir() else find(folder, run)
    info = read_info(path)
    _check_network(path, info)
    devices = (info["device"], device or info["device"])
    table = _predict(path, info, devices[1]).encode()
    if target is not None:
        write_atomic(target, table)
    different = _different(table, (path / PREDICTIONS).read_bytes())
    return Evaluation(path, table.count(b"\n") - 1, different, devices)


def _check_network(path: Path, info: dict[str, Any]) -> None:
    found = sha256(path / CHECKPOINT)
    if found != info["sha256"]:
        raise KdpError(
            f"{path / CHECKPOINT} is not the file that was kept: its SHA-256 is {found[:12]}..., "
            f"that of the experiment {info['sha256'][:12]}..."
        )


def _predict(path: Path, info: dict[str, Any], device: str) -> str:
    config = load_config(path / CONFIG)
    model, arch, _ = load_network(path / CHECKPOINT)
    with _threads(info["threads"]):
        return csv_of_mappings(task_for(arch, config).predictions(model.to(pick_device(device))))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Sums come out in another order with another number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _different(new: bytes, old: bytes) -> int:
    """Rows that are not the same; all of them where the columns are not."""
    lines = [table.splitlines(keepends=True) for table in (new, old)]
    differ = [one != other for one, other in zip_longest(*lines)]
    return max(len(differ) - 1, 1) if differ[0] else sum(differ)
