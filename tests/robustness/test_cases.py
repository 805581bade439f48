"""Mutated inputs end in a result or in one line, and killed runs leave nothing behind."""

from __future__ import annotations

from pathlib import Path

from tests.robustness.cases import run_cases
from tests.robustness.client import Kdp
from tests.robustness.kinds import KINDS, SEED


def test_cases(cases: list[tuple[str, range]], kdp: Kdp, base: Path, tmp_path: Path) -> None:
    messages = []
    for kind, numbers in cases:
        run, allowed = KINDS[kind].run, KINDS[kind].allowed * len(numbers)
        failures = list(run_cases(kdp, kind, run, base, tmp_path, SEED, numbers))
        messages += map(str, failures if len(failures) > allowed else [])
    assert not messages, "\n".join(["python -m tests.robustness repeats one:", *messages])
