"""How kdp's tables look on a terminal, and how numbers are written in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kdp.text import printable

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_DIGITS = 3
"""Significant digits that the smallest number of a table's row has at least."""


@dataclass(frozen=True)
class Scale:
    """How numbers of one quantity are written: divided by `factor`, with `digits` decimals."""

    factor: float = 1.0
    prefix: str = ""
    digits: int = 0

    def text(self, value: float, sign: bool = False) -> str:
        """A number in this scale, without the prefix.

        Args:
            value: the number, unscaled.
            sign: write the sign of positive numbers too.
        """
        scaled = value / self.factor
        return f"{scaled:+,.{self.digits}f}" if sign else f"{scaled:,.{self.digits}f}"


def scale_for(values: Sequence[float], prefixes: bool = True) -> Scale:
    """The largest SI prefix in which none of the numbers is below 1, for one row of a table.

    Zeros and numbers that are not finite fit every prefix; below 1,000 there is no prefix.

    Args:
        values: numbers of one quantity.
        prefixes: False for units that take none (thousands of ms are not written as kms).
    """
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    smallest = min(sizes, default=0.0)
    fitting = ((f, p) for f, p in _PREFIXES if prefixes and smallest >= f)
    factor, prefix = next(fitting, (1.0, ""))
    whole = all(float(value).is_integer() for value in sizes) and factor == 1
    if whole or not smallest:
        return Scale(factor, prefix)
    before_point = math.floor(math.log10(smallest / factor)) + 1  # 0.05 has -1: one zero after it
    return Scale(factor, prefix, min(max(_DIGITS - before_point, 0), 6))


def with_unit(value: float, unit: str = "") -> str:
    """A number by itself: 4231234 MACs -> "4.23 MMACs", 536000 B -> "536 kB"."""
    scale = scale_for([value])
    return f"{scale.text(value)} {scale.prefix}{unit}".rstrip()


class PlainTable(Table):
    """A table of text as it is: names of files and layers are neither markup nor escape sequences.

    rich reads strings as markup, where a layer called `[/]` would be an error.
    """

    def add_column(self, header: Any = "", footer: Any = "", **options: Any) -> None:
        """Add a column; see `rich.table.Table`."""
        super().add_column(_plain(header), _plain(footer), **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row; see `rich.table.Table`."""
        super().add_row(*map(_plain, cells), **options)


def plain_table(title: str | None = None) -> Table:
    """An empty table in the looks that all tables of kdp share."""
    return PlainTable(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=Text(printable(title), "bold") if title else None,
        title_justify="left",
    )


def print_line(console: Console, text: str) -> None:
    """Print text as it is: unwrapped, so that paths can be copied, and without markup."""
    console.print(printable(text), highlight=False, soft_wrap=True, markup=False, emoji=False)


def _plain(cell: Any) -> Any:
    return Text(printable(cell)) if isinstance(cell, str) else cell
