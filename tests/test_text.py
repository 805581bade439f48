"""Text of unknown origin on terminals, in Markdown and in CSV."""

from __future__ import annotations

import csv
import io
import logging
import sys

import pytest
from rich.console import Console

from kdp.cli.echo import echo
from kdp.log import log, set_up_logging
from kdp.serialize import csv_of_mappings
from kdp.stages.tables import plain_table, print_line
from kdp.text import from_csv_cell, markdown, printable

HOSTILE = [
    "\x1b[2Jlayer",
    "\x1b]0;title\x07",
    "a\rb",
    "\x9b31m",
    "a\u202eb",
    "\udcff",
    "a\x08b",
    "a\x00b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_drives_a_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert "\\" in shown


@pytest.mark.parametrize("text", ["blocks.0.weight", "口罩 é", "a\tb\nc", r"C:\a"])
def test_other_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("text", [*HOSTILE, "[/]", "[bold]x", "[link=http://x]y[/link]", ":boom:"])
def test_tables_and_lines_hold_text_alone(text: str) -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    table = plain_table(text)
    table.add_column(text)
    table.add_row(text)
    console.print(table)
    print_line(console, text)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert output.count(printable(text)) == 4


@pytest.mark.parametrize("text", HOSTILE[:3])
def test_log_lines_hold_text_alone(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    level = log.level
    set_up_logging(logging.INFO)
    try:
        log.warning(f"{text} is damaged")
    finally:
        log.handlers.clear()
        log.setLevel(level)
        log.propagate = True
    assert printable(text) in capsys.readouterr().err


def test_a_path_is_escaped_for_terminals_only(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    echo("a\x1bb\udcff")
    assert capfdbinary.readouterr().out == b"a\x1bb\xff\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    echo("a\x1bb\udcff")
    assert capfdbinary.readouterr().out == b"a\\x1bb\\udcff\n"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("a\nb\r\n| c", r"a b \| c"),
        ("<script>", r"\<script>"),
        ("[x](http://y)", r"\[x\](http://y)"),
        ("student_x2.pth", "student_x2.pth"),
    ],
)
def test_markdown_has_one_line_without_markup(text: str, cell: str) -> None:
    assert markdown(text) == cell


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "=HYPERLINK(A1)"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_field_is_a_formula(text: str) -> None:
    header, row = csv.reader(io.StringIO(csv_of_mappings([{text: text}])))
    assert header == row == [f"'{text}"]
    assert from_csv_cell(row[0]) == text


@pytest.mark.parametrize("value", [-1.5, "-1.5", "+3", -0.0, "-inf", "'quoted", "a=b", None])
def test_numbers_and_other_text_stay(value: object) -> None:
    _, row = csv.reader(io.StringIO(csv_of_mappings([{"x": value, "y": 1}])))
    assert row[0] == ("" if value is None else str(value))
    assert from_csv_cell(row[0]) == row[0]
