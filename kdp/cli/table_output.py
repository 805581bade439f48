"""Where the table of `kdp compare` and `kdp evaluate` goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kdp.cli.echo import echo
from kdp.cli.options import TableFormat

if TYPE_CHECKING:
    from kdp.stages.compare.compare import Evaluation


def write_and_print(
    evaluation: Evaluation, printed: TableFormat, formats: Mapping[Path, str]
) -> None:
    """Write the table into files in the format of each, and print it.

    Printing comes last: a reader such as `head` may close the pipe, which ends the command.
    """
    from kdp.stages.compare import tables
    from kdp.written import write_output

    for path, kind in formats.items():
        write_output(path, tables.WRITERS[kind](evaluation).encode())
    if printed == "table":
        tables.show(evaluation)
    else:
        echo(tables.WRITERS[printed](evaluation), nl=False)
