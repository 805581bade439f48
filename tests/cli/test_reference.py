"""docs/cli.md is what the command line says of itself."""

from __future__ import annotations

from kdp.cli.reference import to_markdown
from tests.conftest import ROOT


def test_the_reference_is_up_to_date() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert text == to_markdown(), "run: python -m kdp.cli.reference > docs/cli.md"
