"""Ending long work on request, at a point where nothing is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Shutdown:
    """Set once somebody asks the work to end."""

    stop_requested = False


@contextmanager
def graceful_shutdown() -> Iterator[Shutdown]:
    """Turn SIGINT and SIGTERM into a request; a second SIGINT ends the program at once."""
    shutdown = Shutdown()
    if threading.current_thread() is not threading.main_thread():
        yield shutdown
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: FrameType | None) -> None:
        shutdown.stop_requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in before:
        signal.signal(number, request)
    try:
        yield shutdown
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
