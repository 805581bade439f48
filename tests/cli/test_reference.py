"""docs/cli.md matches the command line."""

from __future__ import annotations

from kdp.cli.reference import to_markdown
from tests.conftest import ROOT


def test_the_reference_is_up_to_date() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert text == to_markdown(), "run: python -m kdp.cli.reference > docs/cli.md"
