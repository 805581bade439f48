"""Processes of a sweep that end with the one that started them, even if it is killed."""

from __future__ import annotations

import os
import signal
import threading
import time

POLL = 0.2
"""Seconds between two checks of a process."""


def end_with_parent(parent: int) -> None:
    """Send this process SIGTERM once its parent has died, from a thread that watches it.

    Args:
        parent: its process number, as the parent itself knows it: it may be dead by now.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)
