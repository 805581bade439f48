"""Graceful shutdown: after SIGINT, SIGTERM or SIGHUP work stops where it can be resumed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from kdp.errors import Interrupted

if TYPE_CHECKING:
    from torch import nn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 2.0
"""Seconds that a group, a file or a validation gets to finish before it is abandoned. Schedulers
kill a process half a minute after they have asked it to stop."""

_Handler = Callable[[int, FrameType | None], None]


class Shutdown:
    """`stop_requested` becomes True when a signal arrives; long loops check it between steps.

    Attributes:
        requested: time of the first signal on the monotonic clock; None before.
    """

    requested: float | None = None

    @property
    def stop_requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.requested is not None

    @property
    def overdue(self) -> bool:
        """Whether it arrived so long ago that work that is not finished is to be abandoned."""
        return self.requested is not None and time.monotonic() - self.requested > GRACE


class StopRequested(Exception):
    """Leaves a forward pass between two layers."""


@contextmanager
def graceful_shutdown() -> Iterator[Shutdown]:
    """Turn SIGINT, SIGTERM and SIGHUP into a request to stop, inside the block.

    A second SIGINT raises KeyboardInterrupt at once. A SIGHUP that is ignored, as under nohup,
    stays ignored. Outside the main thread, where Python allows no signal handlers, nothing
    changes. The previous handlers are restored afterwards.
    """
    shutdown = Shutdown()

    def request(number: int, frame: FrameType | None) -> None:
        if shutdown.requested is None:
            shutdown.requested = time.monotonic()
        _leave_closed_terminal()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    with _handled(SIGNALS, request):
        yield shutdown


@contextmanager
def stop_at_once(message: str) -> Iterator[None]:
    """Leave the block with `Interrupted(message)` as soon as one of the signals arrives.

    For work that has nothing to finish: contexts are closed, temporary files removed. A second
    SIGINT does not wait for that. Signals that are ignored stay ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        # A terminal that closes sends SIGHUP twice, once by the shell; the second one must not
        # disturb the closing of contexts.
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _leave_closed_terminal()
        raise KeyboardInterrupt

    heeded = tuple(n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN)
    with _handled(heeded, interrupt):
        try:
            yield
        except KeyboardInterrupt as error:
            raise Interrupted(message) from error


@contextmanager
def stop_between_layers(model: nn.Module, is_due: Callable[[], bool]) -> Iterator[None]:
    """Raise `StopRequested` before the next layer of a network once `is_due()`.

    A pass over a large input takes many seconds, a validation many passes.
    """

    def before_layer(*_: object) -> None:
        if is_due():
            raise StopRequested

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(before_layer).remove)
        yield


def ignore_signals(worker: int = 0) -> None:
    """Leave stopping to the main process: for processes that load its data.

    Schedulers and terminals send a signal to all processes of a job, and a training whose workers
    die ends with an error instead of a checkpoint.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handled(signals: tuple[signal.Signals, ...], handler: _Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in signals}
    for number, before in previous.items():
        if (number, before) != (signal.SIGHUP, signal.SIG_IGN):
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)


def _leave_closed_terminal() -> None:
    """Print into the void from now on, if the terminal is gone.

    Every line would raise an OSError otherwise, before there is a checkpoint.
    """
    for output in (1, 2):
        try:
            os.write(output, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)
