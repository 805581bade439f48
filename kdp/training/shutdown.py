"""Graceful shutdown: on SIGINT or SIGTERM finish the current step, save, then stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Shutdown:
    """`stop_requested` becomes True when a signal arrives; long loops check it between steps."""

    stop_requested = False


@contextmanager
def graceful_shutdown() -> Iterator[Shutdown]:
    """Turn SIGINT and SIGTERM into a request to stop, inside the block.

    A second SIGINT raises KeyboardInterrupt at once. Outside the main thread, where Python allows
    no signal handlers, nothing changes. The previous handlers are restored afterwards.
    """
    shutdown = Shutdown()
    if threading.current_thread() is not threading.main_thread():
        yield shutdown
        return
    previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: FrameType | None) -> None:
        shutdown.stop_requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in previous:
        signal.signal(number, request)
    try:
        yield shutdown
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
