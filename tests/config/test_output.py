"""What `output.name` may be: the start of file names inside `output.dir`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kdp.config import Config

LEAVING = ["../up", "/tmp/up", "a/b", "a\\b", "..", "."]
UNREADABLE = ["", "  ", "a\nb", "a\x1b[31mb", "a\0b", "a\x85b", "a\udcffb"]


@pytest.mark.parametrize("name", [*LEAVING, *UNREADABLE, 240 * "n", 90 * "é"])
def test_invalid_file_names_are_rejected(name: str) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"output": {"name": name}})


@pytest.mark.parametrize("name", ["a b", "student-x2.1", "面具", "$(x)", "007", 160 * "n"])
def test_other_names_are_accepted(name: str) -> None:
    assert Config.model_validate({"output": {"name": name}}).output.name == name
