"""Errors of samples end a training in one line, also where workers load them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdp.errors import KdpError
from kdp.training.loading import batch_loader, worker_ends_named
from kdp.training.step_errors import unusable_batch


class Samples(Dataset[dict[str, Tensor]]):
    """Eight numbers, of which the sixth has a fault."""

    def __init__(self, fault: Callable[[], object]) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if number == 5:
            self.fault()
        return {"x": torch.tensor(number)}


def corrupt() -> None:
    raise KdpError("cannot read the image a.png: its end is missing")


def gone() -> None:
    Path("/nowhere/a.png").read_bytes()


def refused() -> None:
    raise PermissionError(13, "Permission denied", "a.png")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (corrupt, r"cannot read the image a\.png: its end is missing"),
        (gone, r"cannot read a training sample: .*No such file.*a\.png'"),
        (refused, r"cannot read a training sample: .*Permission denied: 'a\.png'"),
    ],
)
def test_a_sample_that_cannot_be_loaded_ends_in_one_line(
    workers: int, fault: Callable[[], object], line: str
) -> None:
    batches = iter(batch_loader(Samples(fault), 2, workers))
    assert [next(batches)["x"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    reason = unusable_batch(next(batches), 2)
    assert reason
    assert re.fullmatch(line, reason)


@pytest.mark.parametrize(
    "message",
    [
        "DataLoader worker (pid 7) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 7, 8) exited unexpectedly",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that\nmore",
    ],
)
def test_a_worker_that_ends_is_no_traceback(message: str) -> None:
    line = pytest.raises(KdpError, match=r"loads data ended: .*; lower data\.workers$")
    with line, worker_ends_named():
        raise RuntimeError(message)


def test_other_errors_are_not_hidden() -> None:
    def fault() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"), worker_ends_named():
        list(batch_loader(Samples(fault), 2, 0))
