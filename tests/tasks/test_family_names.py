"""The code that serves every family names none of them."""

from __future__ import annotations

import re

from kdp.tasks import FAMILIES
from tests.conftest import ROOT

CORE = ("stages", "pruning", "distillation", "training", "measure", "config")
OTHERS = ("ultralytics", "yolo", "dcase", "tau", "bccd", "voc", "coco", "div2k", "bsds", "faces?")
"""What the families' programs, data sets and samples are called."""
TASKS = ("detection", "detectors?", "scenes?")
"""What the core calls none of its own parts."""
NAME = re.compile(
    rf"{'|'.join(name.replace('_', '.?') for name in FAMILIES)}"
    rf"|(?<![a-z])(?:{'|'.join((*OTHERS, *TASKS))})(?![a-z])",
    re.IGNORECASE,
)


def test_core_packages_name_no_family() -> None:
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for package in CORE
        for path in sorted((ROOT / "kdp" / package).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if NAME.search(line)
    ]
    assert not lines, "\n".join(lines)


def test_names_are_recognized_inside_identifiers_but_not_inside_words() -> None:
    names = ("CATANet", "rep-mobile", "_YOLO11", "face_boxes", "to Faces.", "for detection,")
    assert all(map(NAME.search, names))
    assert not any(map(NAME.search, ("an interface", "surfaces", "vocabulary", "tautology")))
