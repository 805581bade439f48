"""Errors that the user can fix, and the "did you mean" for unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class KdpError(Exception):
    """The input is wrong: the command line prints the message as one line and exits with code 2."""


class Interrupted(Exception):
    """Work stopped on request (Ctrl-C, SIGTERM, SIGHUP), after saving what `--resume` needs."""


def first_line(error: BaseException) -> str:
    """The first line of another library's error, whose message may be a page; its type if empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip()


def join_names(names: Sequence[str], most: int = 6) -> str:
    """Names for a sentence: the first `most` of them, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"available: {', '.join(names)}"
