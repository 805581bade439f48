"""Limit the time and memory of work that may not terminate."""

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

CHECK_INTERVAL = 0.2
"""Seconds between two checks of the limits."""


@contextmanager
def limit_resources(work: str, seconds: float, memory: float) -> Iterator[None]:
    """Stop the block once it runs too long or makes the process too large.

    SIGALRM interrupts the block between two lines of Python. Only the main thread receives
    signals; in any other thread there is no limit.

    Args:
        work: a description of the block, for the message.
        seconds: wall time.
        memory: bytes by which the process may grow beyond its peak so far.

    Raises:
        KdpError: a limit was exceeded.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    started, before, reasons = time.monotonic(), peak_memory(), list[str]()

    def check(number: int, frame: FrameType | None) -> None:
        if time.monotonic() - started > seconds:
            reasons.append(f"{work} was stopped after {seconds:g} seconds")
        elif peak_memory() - before > memory:
            reasons.append(f"{work} was stopped at {memory / 1e9:g} GB of memory")
        if reasons:
            raise KdpError(reasons[0])

    previous = signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, CHECK_INTERVAL, CHECK_INTERVAL)
    try:
        yield
    except Exception as error:
        # The block may have caught the KdpError itself and raised something else because of it.
        if reasons:
            raise KdpError(reasons[0]) from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def peak_memory() -> int:
    """The largest resident set size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux reports kilobytes
