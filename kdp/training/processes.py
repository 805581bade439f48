"""Working in several processes, as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdp.files import file_lock


def is_main_process() -> bool:
    """Whether this process writes the files; one of all the processes does."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def main_process_lock(path: Path) -> Iterator[None]:
    """`kdp.files.file_lock`, by the main process for all of them.

    Raises:
        KdpError: another run holds the path.
    """
    if not is_main_process():
        yield
        return
    with file_lock(path):
        yield
