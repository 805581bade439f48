"""The command line within the process of a test, for what needs no process of its own."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from kdp.cli import main
from kdp.log import log


@dataclass(frozen=True)
class Ended:
    """Exit code of a command, and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def line(self) -> str:
        """The last line on standard error."""
        return self.stderr.splitlines()[-1] if self.stderr else ""


def call_kdp(*arguments: str | Path, stdout: io.TextIOWrapper | None = None) -> Ended:
    """Run a command to its end; exceptions that `main` lets through fail the test.

    Args:
        arguments: of the command line.
        stdout: takes what is printed, in place of a buffer.
    """
    written, err = io.BytesIO(), io.StringIO()
    out = stdout or io.TextIOWrapper(written, "utf-8", write_through=True)
    argv = ["kdp", *map(str, arguments)]
    with _logging_restored(), patch.object(sys, "argv", argv):
        try:
            with redirect_stdout(out), redirect_stderr(err):
                main()
        except SystemExit as end:
            return Ended(int(end.code or 0), written.getvalue().decode(), err.getvalue())
    raise AssertionError("main always exits")


@contextmanager
def _logging_restored() -> Iterator[None]:
    before = (log.handlers[:], log.level, log.propagate)
    try:
        yield
    finally:
        log.handlers[:], log.level, log.propagate = before
