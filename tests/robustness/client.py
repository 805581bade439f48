"""Runs of `kdp` for the cases, and what is wrong with them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.conftest import ROOT
from tests.robustness.worker import MAX_BYTES

WORKER = Path(__file__).with_name("worker.py")
CODES = (0, 1, 2, 130)
_ALLOCATION = re.compile(r"MemoryError|can't allocate|Unable to allocate|Cannot allocate memory")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        code: exit status, negative for a signal.
        stdout: what it printed.
        stderr: its messages.
        operations: file operations that may write.
        ended: why it was stopped: `hang`, `memory`, or empty.
        seconds: duration.
        processor_seconds: processor time.
        peak_bytes: largest resident memory.
    """

    code: int
    stdout: str
    stderr: str
    operations: int
    ended: str
    seconds: float
    processor_seconds: float
    peak_bytes: int


class Kdp:
    """A process that runs commands of kdp one after another; a context manager.

    Args:
        checkout: folder of the kdp to run.
    """

    def __init__(self, checkout: Path = ROOT) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        kill_at: int | str | None = None,
    ) -> Result:
        """Run a command to its end.

        Args:
            arguments: of `kdp`.
            cwd: folder to run it in.
            environment: variables to add.
            kill_at: the file operation before which it is killed; see `tests.robustness.worker`.
        """
        request = {
            "arguments": list(arguments),
            "cwd": str(cwd),
            "environment": dict(environment or {}),
            "kill_at": kill_at,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Result(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Kdp:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def faults(result: Result) -> list[str]:
    """What is wrong with a run, each as `kind: detail`; empty if it ended as it should."""
    problems = []
    if result.ended:
        return [f"{result.ended}: after {result.processor_seconds:.1f} s of processor time"]
    if "Traceback" in result.stderr:
        problems.append(f"traceback: {_place(result.stderr)}")
    elif result.code not in CODES:
        problems.append(f"exit code {result.code}: {result.stderr[-200:]!r}")
    elif result.code:
        problems += _line_faults(result)
    if result.peak_bytes > MAX_BYTES:
        problems.append(f"memory: {result.peak_bytes / 1e9:.1f} GB")
    elif "Traceback" not in result.stderr and _ALLOCATION.search(result.stderr + result.stdout):
        problems.append(f"memory: {result.stderr[-200:]!r}")
    if control := _CONTROL.search(result.stderr):
        problems.append(f"control character {control[0]!r} in the messages")
    return problems


def _line_faults(result: Result) -> list[str]:
    """A failed command ends in one line `kdp: ...`; `validate` prints a failed check instead."""
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("kdp:")]
    if not errors and re.search(r"^FAIL .+: .", result.stdout, re.MULTILINE):
        return []
    if len(errors) != 1:
        return [f"{len(errors)} error lines: {result.stderr[-200:]!r}"]
    if lines[-1] != errors[0]:
        return [f"text after the error line: {lines[-1]!r}"]
    return []


def _place(stderr: str) -> str:
    """Type of an exception, and the last line of kdp's code that it passed."""
    last = next((line for line in reversed(stderr.splitlines()) if line and line[0] != " "), "")
    places = re.findall(r'File "[^"]*/(kdp/[^"]+)", line (\d+), in (\S+)', stderr)
    where = f" at {places[-1][0]}:{places[-1][1]} {places[-1][2]}" if places else ""
    return f"{last[:160]}{where}"
