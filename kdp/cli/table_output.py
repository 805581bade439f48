"""Where the table of `kdp compare` and `kdp evaluate` goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kdp.cli.echo import echo
from kdp.cli.options import TableFormat

if TYPE_CHECKING:
    from kdp.stages.compare.compare import Evaluation


def print_and_write(
    evaluation: Evaluation, printed: TableFormat, formats: Mapping[Path, str]
) -> None:
    """Print the table, and write it into files in the format of each."""
    from kdp.stages.compare import tables
    from kdp.written import write_output

    if printed == "table":
        tables.show(evaluation)
    else:
        echo(tables.WRITERS[printed](evaluation), nl=False)
    for path, kind in formats.items():
        write_output(path, tables.WRITERS[kind](evaluation).encode())
