"""The command line, a module per command: parse, call one stage, print.

Nothing heavy is imported before a stage runs.
"""

from __future__ import annotations

import sys

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
    recover,
    reproduce,
    sweep,
    train,
    validate,
)
from kdp.cli.app import app
from kdp.cli.errors import exit_with
from kdp.errors import Interrupted

__all__ = ["app", "main"]


def main() -> None:
    """Run kdp; every error becomes one line and an exit code, see `kdp.cli.errors`."""
    try:
        code = app(prog_name="kdp", standalone_mode=False) or 0
        sys.stdout.flush()  # a full disk is noticed here, not while the interpreter shuts down
    except Exception as error:
        if "--debug" in sys.argv and not isinstance(error, Interrupted):
            raise
        exit_with(error)
    raise SystemExit(code)
