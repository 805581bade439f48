"""Mutated inputs end in a result or in one line: no traceback, hang, excess of memory, or code."""

from __future__ import annotations

from pathlib import Path

from tests.robustness.cases import run_cases
from tests.robustness.client import Kdp
from tests.robustness.kinds import KINDS, SEED


def test_mutated_inputs(cases: tuple[str, range], kdp: Kdp, base: Path, tmp_path: Path) -> None:
    kind, numbers = cases
    failures = list(run_cases(kdp, kind, KINDS[kind].make, base, tmp_path, SEED, numbers))
    command = "python -m tests.robustness"
    assert not failures, f"{command} repeats one:\n" + "\n".join(map(str, failures))
