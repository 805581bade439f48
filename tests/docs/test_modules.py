"""The index of modules is that of the code."""

from __future__ import annotations

from tests.conftest import ROOT
from tests.docs.modules import index


def test_the_index_of_modules_is_up_to_date() -> None:
    written = (ROOT / "docs" / "modules.md").read_text()
    assert written == index(), "run: python -m tests.docs.modules > docs/modules.md"
