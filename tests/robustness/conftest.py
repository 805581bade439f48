"""The option `--robustness`, and what the cases share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.robustness.base import write_base
from tests.robustness.chain import write_chain
from tests.robustness.client import Kdp
from tests.robustness.kinds import KINDS

SLICE = 100
"""Cases of one test of the long run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--robustness",
        choices=("short", "long"),
        default="short",
        help="short: a few cases of each kind; long: all of them, which takes hours",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test of a few cases, as each process that runs one prepares files; or many of 100."""
    if "cases" not in metafunc.fixturenames:
        return
    if metafunc.config.getoption("--robustness", "short") == "long":
        slices = [
            [(name, range(first, min(first + SLICE, kind.long)))]
            for name, kind in KINDS.items()
            for first in range(0, kind.long, SLICE)
        ]
        names = [f"{name}-{numbers.start}" for ((name, numbers),) in slices]
    else:
        slices = [[(name, range(kind.short)) for name, kind in KINDS.items()]]
        names = ["short"]
    metafunc.parametrize("cases", slices, ids=names)


@pytest.fixture(scope="session")
def kdp() -> Iterator[Kdp]:
    """Runs commands within limits."""
    if sys.platform != "linux":
        pytest.skip("the limits of time and memory need /proc")
    with Kdp() as runs:
        yield runs


@pytest.fixture(scope="session")
def base(kdp: Kdp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that the cases change."""
    base = write_base(tmp_path_factory.mktemp("robustness") / "base")
    write_chain(kdp, base)
    return base
