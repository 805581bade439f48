"""Messages for the user: the standard logger `kdp`, printed on standard error by the CLI."""

from __future__ import annotations

import logging
from functools import cache

from rich.console import Console

from kdp.text import printable

console = Console(stderr=True)
"""Shared by log lines and progress bars, so that a line never tears a bar."""

log = logging.getLogger("kdp")


class _ConsoleHandler(logging.Handler):
    """Prints messages unwrapped and unstyled; rich's own handler breaks lines at 80 columns."""

    def emit(self, record: logging.LogRecord) -> None:
        text = printable(self.format(record))
        console.print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)


def set_up_logging(level: int = logging.INFO) -> None:
    """Print the messages of kdp on standard error, from `level` on, as they are.

    Only the command line calls this: as a library, kdp leaves handlers to the program that uses it.
    """
    log.handlers[:] = [_ConsoleHandler()]
    log.setLevel(level)
    log.propagate = False


def is_interactive() -> bool:
    """Whether standard error is a terminal that can redraw a line.

    FORCE_COLOR makes rich take a pipe for a terminal: then colours are wanted, bars are not.
    """
    return console.is_interactive and console.file.isatty()


@cache
def log_once(message: str) -> None:
    """Log a message at INFO, and the same message never again in this process.

    Several networks of one comparison may each find the same damaged file.
    """
    log.info(message)
