"""Fixtures shared by the tests."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from functools import cache

# One process per core runs tests; more threads than that only wait for one another. Set before
# torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Many commands run in this folder; their chains are none of its user's.
os.environ["KDP_NO_CHAINS"] = "1"

from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch import Tensor

from kdp.log import log, log_once
from kdp.training.curve_plot import plot_curves
from kdp.training.curves import CurveRow

ROOT = Path(__file__).parent.parent

TINY: dict[str, Any] = {
    "upscale": 2,
    "dim": 8,
    "tab_heads": 2,
    "tab_neurons": 6,
    "lrsa_heads": 2,
    "lrsa_neurons": 6,
    "qk_head_dim": 3,
    "v_head_dim": 4,
    "patch_sizes": [8, 10],
    "num_tokens": [4, 8],
    "group_sizes": [16, 8],
}
"""Arguments of a CATANet that is fast to run."""


def same_params(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dicts are bitwise equal, as those of two equal runs on one machine are."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def pytest_configure() -> None:
    """Stop on signals as in a terminal.

    `nohup` has tests, and what they start, ignore SIGHUP; a script's `&` has them ignore SIGINT.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


SLOW = ("test_yolo", "test_ultralytics", "tests/stages/", "tests/training/", "tests/docs/")
"""Parts of the names of test files that take most of the time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fast files first, so that most failures show within a minute."""
    items.sort(key=lambda item: any(part in item.nodeid for part in SLOW))


def pytest_collection_finish() -> None:
    """Spare the garbage collector the libraries, whose objects stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Golden tensors and data sets; tests that need them are skipped where they are absent."""
    folder = Path(os.environ.get("KDP_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent (set KDP_SHARED)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests note what they wrote in a folder of their own, not in the current one."""
    folder = tmp_path_factory.getbasetemp() / ".kdp"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdp.written.WRITTEN_FILE", folder / "written.jsonl")
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_command_line() -> Iterator[None]:
    """Typer makes the command line anew for every command, which is one in a process of its own."""
    command_line = cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", command_line)
        patch.setattr("typer.testing._get_command", command_line)
        yield


def no_plot(rows: Sequence[CurveRow], metrics: Sequence[str]) -> bytes:
    """Stands in for `plot_curves`."""
    return b"Matplotlib"


@pytest.fixture(autouse=True, scope="session")
def _no_plots() -> Iterator[None]:
    """Trainings draw no curves: that takes longer than most of them; see `plots`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdp.training.curves.plot_curves", no_plot)
        yield


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of this test draw their curves."""
    monkeypatch.setattr("kdp.training.curves.plot_curves", plot_curves)


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """Messages that kdp logs during a test, however the logger was configured before."""

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    lines: list[str] = []
    handler, level = Recorder(), log.level
    log_once.cache_clear()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(handler)
    log.setLevel(level)
    log_once.cache_clear()
