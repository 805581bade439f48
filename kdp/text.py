"""Text of unknown origin (names of files, layers and classes) on terminals and in tables."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, which drive a terminal, except tab and newline; line and paragraph
separators; characters that turn the direction of what follows; bytes that are no text."""
LONGEST_NAME = 200
"""Bytes; file systems take 255, and endings and temporary files add to it."""
_MARKDOWN = re.compile(r"[\\|<\[\]`*]")
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\r")


def printable(text: str) -> str:
    r"""The text with everything that a terminal would obey written as an escape, such as `\x1b`."""
    return _UNPRINTABLE.sub(lambda match: _escaped(ord(match[0])), text)


def markdown(text: str) -> str:
    """The text on one line of Markdown, a table's cell included, as it is and without markup."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(" ".join(text.split())))


def file_name(text: str) -> str:
    """The text as one part of a path: what separates folders or cannot be printed is `_`."""
    name = _UNPRINTABLE.sub("_", re.sub(r"[/\\\s]", "_", text))
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


def csv_cell(value: object) -> object:
    """The value of a CSV field: text that a spreadsheet would compute gets a quote in front."""
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else value


def from_csv_cell(text: str) -> str:
    """The text that `csv_cell` was given."""
    return text[1:] if text.startswith("'") and csv_cell(text[1:]) == text else text


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
