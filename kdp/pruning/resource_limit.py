"""A limit of time and memory for work that may never end."""

from __future__ import annotations

import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kdp.errors import KdpError

LOOK_EVERY = 0.2
"""Seconds."""


@contextmanager
def limit_resources(what: str, seconds: float, memory: float) -> Iterator[None]:
    """Stop the block once it has run too long or made the process too large.

    It looks at both by SIGALRM, between two lines of Python; outside of the main thread, which
    alone gets signals, there is no limit.

    Args:
        what: the work, for the message.
        seconds: of wall time.
        memory: bytes by which the process may grow beyond the most it has had.

    Raises:
        KdpError: it was stopped.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    started, before, reasons = time.monotonic(), peak_memory(), list[str]()

    def look(number: int, frame: FrameType | None) -> None:
        if time.monotonic() - started > seconds:
            reasons.append(f"{what} was stopped after {seconds:g} seconds")
        elif peak_memory() - before > memory:
            reasons.append(f"{what} was stopped at {memory / 1e9:g} GB of memory")
        if reasons:
            raise KdpError(reasons[0])

    old = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_EVERY, LOOK_EVERY)
    try:
        yield
    except Exception as error:
        if reasons:  # the block may have caught the error itself, and made another one of it
            raise KdpError(reasons[0]) from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def peak_memory() -> int:
    """Bytes of memory the process has had at most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
