"""The command line, a module per command: parse, call one stage, print.

Nothing heavy is imported before a stage runs.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from kdp.cli import (  # noqa: F401 (importing a module registers its command)
    cache_targets,
    chains,
    clean,
    compare,
    configs,
    evaluate,
    experiments,
    export,
    finetune,
    infer,
    inspect_weights,
    paths,
    prune,
    rebuild,
    reproduce,
    sweep,
    train,
    validate,
)
from kdp.cli.app import app
from kdp.errors import Interrupted, KdpError
from kdp.text import printable

__all__ = ["app", "main"]

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Base class of errors in the usage of options; typer does not export it."""


def main() -> None:
    """Run kdp; an error that the user can fix becomes one line and an exit code."""
    try:
        raise SystemExit(app(prog_name="kdp", standalone_mode=False) or 0)
    except Interrupted as error:
        _exit(str(error), 130, error)
    except KdpError as error:
        _exit(str(error), 2, error)
    except _UsageError as error:
        _exit(_usage(error), 2, error)
    except (OSError, MemoryError) as error:
        _exit(f"{type(error).__name__}: {error} (--debug shows where)", 2, error)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported for this
            raise
        _exit(f"{error}; lower the batch size or the size of inputs", 2, error)


def _exit(message: str, code: int, error: Exception) -> NoReturn:
    """End with a line on standard error, or with the traceback where `--debug` asks for it."""
    if "--debug" in sys.argv and not isinstance(error, Interrupted):
        raise error
    if message:
        typer.echo(f"kdp: {printable(' '.join(message.split()))}", err=True)
    raise SystemExit(code) from error


def _usage(error: Exception) -> str:
    """What is wrong with the command line, and where to look; empty where help was printed."""
    message = getattr(error, "format_message", error.__str__)().rstrip(".")
    message = message.replace("Value error, ", "")  # pydantic's words, which typer passes on
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message
    return f"{message[0].lower()}{message[1:]}; see {context.command_path} --help"
