"""How an error ends a command: one line on standard error, and an exit code."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from kdp.errors import Interrupted, KdpError, first_line
from kdp.text import printable

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Base class of errors in the usage of options; typer does not export it."""


def exit_with(error: Exception) -> NoReturn:
    """End with a line on standard error.

    The exit code is 2 for an error that the user can fix, 1 for a bug of kdp, 130 for an
    interruption.
    """
    message, code = _message(error)
    if isinstance(error, OSError):
        # What standard output could not take is still in its buffer, and would fail once more when
        # the interpreter shuts down.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if message:
        typer.echo(f"kdp: {printable(' '.join(message.split()))}", err=True)
    raise SystemExit(code) from error


def _message(error: Exception) -> tuple[str, int]:
    """What an error comes to: a line, which may be empty, and an exit code."""
    match error:
        case Interrupted():
            return str(error), 130
        case KdpError():
            return str(error), 2
        case BrokenPipeError():  # whoever reads the output has seen enough
            return "", 1  # as typer ends where it notices first
        case OSError():
            return f"{_of_system(error)} (--debug shows where)", 2
        case _UsageError():
            return _usage(error), 2
    if _is_out_of_memory(error):
        reason = str(error) or "out of memory"
        return f"{reason}; lower the batch size or the size of inputs", 2
    name = f"{type(error).__name__}: {first_line(error)}"
    return f"internal error: {name}; this is a bug of kdp, --debug shows the traceback", 1


def _of_system(error: OSError) -> str:
    """An error of the operating system in words: the path first."""
    reason = error.strerror or first_line(error)
    path = error.filename
    return reason if path is None or isinstance(path, int) else f"{os.fsdecode(path)}: {reason}"


def _is_out_of_memory(error: Exception) -> bool:
    """Whether it is Python's or torch's error, which is not imported for this."""
    allocator = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return allocator or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _usage(error: Exception) -> str:
    """What is wrong with the command line, and where to look; empty where help was printed."""
    message = getattr(error, "format_message", error.__str__)().rstrip(".")
    message = message.replace("Value error, ", "")  # pydantic's words, which typer passes on
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message
    return f"{message[0].lower()}{message[1:]}; see {context.command_path} --help"
