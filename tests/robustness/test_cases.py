"""Mutated inputs end in a result or in one line, and killed runs leave nothing behind."""

from __future__ import annotations

from pathlib import Path

from tests.robustness.cases import run_cases
from tests.robustness.client import Kdp
from tests.robustness.kinds import KINDS, SEED


def test_cases(cases: tuple[str, range], kdp: Kdp, base: Path, tmp_path: Path) -> None:
    kind, numbers = cases
    failures = list(run_cases(kdp, kind, KINDS[kind].run, base, tmp_path, SEED, numbers))
    allowed = KINDS[kind].allowed * len(numbers)
    command = "python -m tests.robustness"
    assert len(failures) <= allowed, f"{command} repeats one:\n" + "\n".join(map(str, failures))
