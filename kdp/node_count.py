"""How many values nested content holds once everything that it refers to is written out.

Without torch: a configuration is counted before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

MAX_DEPTH = 100
"""Of mappings and lists within one another."""


class TooLargeError(ValueError):
    """Something would grow beyond its limit."""


def count_nodes(
    root: Any, children: Callable[[Any], Iterable[Any]], most: int, depth: int = MAX_DEPTH
) -> int:
    """How many values there are if everything that is referred to is written out.

    Args:
        root: the outermost value.
        children: the values inside a value.
        most: refused beyond this.
        depth: levels within one another that are allowed.

    Raises:
        TooLargeError: there are more, or they are nested too deeply (as one inside itself is).
    """
    counts: dict[int, int] = {}

    def count(value: Any, left: int) -> int:
        if left < 0:
            raise TooLargeError(f"it is nested more than {depth} levels deep")
        inside = list(children(value))
        if not inside:
            return 1 + (len(value) >> 6 if isinstance(value, (str, bytes)) else 0)
        if id(value) not in counts:
            counts[id(value)] = 1 + sum(count(child, left - 1) for child in inside)
        if counts[id(value)] > most:
            raise TooLargeError(f"it holds more than {most:,} values")
        return counts[id(value)]

    return count(root, depth)
