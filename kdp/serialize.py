"""JSON and CSV as text, and nested values as flat ones: files and tables are built of them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from kdp.errors import KdpError
from kdp.text import csv_cell


def json_text(content: Any) -> str:
    """Strict JSON, indented, for files: paths as text, numbers that are not finite as null."""
    return json.dumps(_strict(content), indent=2, allow_nan=False) + "\n"


def json_line(content: Any) -> str:
    """The same on one line without a line break, for JSON Lines and metadata."""
    return json.dumps(_strict(content), allow_nan=False)


def table_format(path: Path) -> Literal["csv", "json", "md"]:
    """The format that the extension of a table's file stands for.

    Raises:
        KdpError: it stands for none.
    """
    match path.suffix.lower():
        case ".csv":
            return "csv"
        case ".json":
            return "json"
        case ".md":
            return "md"
    raise KdpError(f"cannot write the table {path}: its name must end with .csv, .json or .md")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ",") -> str:
    """CSV with one header; None becomes an empty field, and no text is a spreadsheet's formula."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([csv_cell(value) for value in row] for row in (header, *rows))
    return text.getvalue()


def csv_of_mappings(rows: Sequence[Mapping[str, object]]) -> str:
    """CSV with the columns of all rows, in the order they first occur."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    return csv_text(header, ([row.get(key, "") for key in header] for row in rows))


def flattened(content: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """The values of nested mappings with their keys joined; an empty mapping counts as a value."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            inner = flattened(value, separator)
            flat.update({f"{key}{separator}{name}": item for name, item in inner.items()})
        else:
            flat[str(key)] = value
    return flat


def _strict(value: Any) -> Any:
    # json writes NaN and Infinity, which are not JSON: other programs refuse the whole file.
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
