"""Distributed runs, as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kdp.files import file_lock


def is_main_process() -> bool:
    """True in the one process that writes files (rank 0)."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def main_process_lock(*paths: Path) -> Iterator[None]:
    """Hold `kdp.files.file_lock` on files and folders, in the main process on behalf of all.

    Raises:
        KdpError: another run holds one of them.
    """
    with ExitStack() as stack:
        for path in paths if is_main_process() else ():
            stack.enter_context(file_lock(path))
        yield
