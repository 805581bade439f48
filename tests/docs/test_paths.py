"""Source files that the documents name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(path for path in ROOT.glob("docs/*.md") if path.name not in ("adding.md", "log.md")),
]
"""All but the guide that adds files, and the log, which tells of earlier ones."""
PLACEHOLDER = re.compile(r"COMMAND|FAMILY|FORMAT|SECTION")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_source_files_that_a_document_names_exist(document: Path) -> None:
    named = set(re.findall(r"`((?:kdp|tests|benchmarks)/[\w/.]*)`", document.read_text()))
    missing = {
        name for name in named if not PLACEHOLDER.search(name) and not (ROOT / name).exists()
    }
    assert not missing
