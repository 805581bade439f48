"""The index of kdp's modules, generated: `python -m tests.docs.modules > docs/modules.md`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

HEAD = """\
# Modules

Every module of kdp with the first line of its docstring, to search for what you want to change.
[CONTRIBUTING.md](../CONTRIBUTING.md#where-things-are) maps common changes to files.

This page is generated: `python -m tests.docs.modules > docs/modules.md`.
"""


def index() -> str:
    """The page: a table for each folder, top-level modules first."""
    folders: dict[Path, list[str]] = {}
    for path, summary in sorted(_summaries(), key=lambda item: (item[0].parent, item[0].name)):
        folders.setdefault(path.parent, []).append(f"| `{path.name}` | {_cell(summary)} |")
    return HEAD + "".join(
        f"\n## `{folder}/`\n\n| module | |\n| --- | --- |\n" + "\n".join(rows) + "\n"
        for folder, rows in folders.items()
    )


def _summaries() -> Iterator[tuple[Path, str]]:
    """Paths relative to the repository, and what their modules are for."""
    for path in (ROOT / "kdp").rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        if docstring:
            yield path.relative_to(ROOT), docstring.partition("\n")[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(index(), end="")
