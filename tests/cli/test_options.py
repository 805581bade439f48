"""Options that stand for changes of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdp.cli.options import merged
from kdp.errors import KdpError
from kdp.serialize import table_format


def test_device_and_output_come_last_because_the_last_change_of_a_key_holds() -> None:
    changes = merged(["seed=1", "device=cuda"], ["seed=2"], "cpu", Path("out"))
    assert changes == ["seed=1", "device=cuda", "seed=2", "output.dir=out", "device=cpu"]


def test_no_options_change_nothing() -> None:
    assert merged(None) == []


@pytest.mark.parametrize(("name", "kind"), [("a.csv", "csv"), ("a.JSON", "json"), ("a.md", "md")])
def test_the_suffix_selects_the_format(name: str, kind: str) -> None:
    assert table_format(Path(name)) == kind


def test_an_unsupported_suffix_is_rejected() -> None:
    with pytest.raises(KdpError, match=r"a\.txt: its name must end with \.csv, \.json or \.md"):
        table_format(Path("a.txt"))
