"""What a family brings for `kdp infer` is its own: no stage knows it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from kdp import tasks
from kdp.config import Config
from kdp.errors import KdpError
from kdp.tasks.family import Family
from kdp.tasks.predictor import TABLE, InferOptions, TableFormat
from kdp.tasks.scenes.export import export_spec
from kdp.tasks.scenes.task import AcousticScenes
from kdp.types import Arch
from tests.in_process import Ended, call_kdp
from tests.stages.sound_helpers import write_network


@dataclass(frozen=True)
class WordCount:
    words: int
    part_ms: dict[str, float] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        return {"words": self.words}


def only_counts(rows: Sequence[tuple[Path, WordCount]]) -> str:
    return "".join(f"{file.stem}={count.words}\n" for file, count in rows)


class WordCounter:
    """Runs on texts, which no family of kdp does."""

    options, suffixes = TABLE, frozenset({".txt"})
    kind, action, noun = "a counter of words", "count words", "text"
    formats = {"counts": TableFormat(only_counts)}  # noqa: RUF012

    def __init__(self, model: nn.Module, arch: Arch, config: Config, options: InferOptions) -> None:
        self._model = model

    def read(self, path: Path) -> list[str]:
        if not (words := path.read_text().split()):
            raise KdpError(f"the text {path} has no words")
        return words

    def passes(self, sample: Any) -> int:
        return 1

    def __call__(self, sample: list[str]) -> WordCount:
        self._model(torch.zeros(1, 1, 64, 33))
        return WordCount(len(sample))


def install(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    """Give the network `cp_mobile` to a family of another package."""
    module = ModuleType("texts.family")
    vars(module)["FAMILY"] = Family(task=AcousticScenes, export_spec=export_spec, **parts)
    for name in ("texts", "texts.section"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "texts.family", module)
    monkeypatch.setitem(tasks.FAMILIES, "cp_mobile", "texts")


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two texts and an empty one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    for name, content in (("a.txt", "one two"), ("b.TXT", "one"), ("c.txt", ""), ("d.wav", "x")):
        (tmp_path / "texts" / name).write_text(content)
    return Path("texts")


def infer(folder: Path, *arguments: str | Path) -> Ended:
    network = write_network(folder.absolute().parent / "n.pth", "cp_mobile")
    return call_kdp("infer", network, folder, *arguments, "--device", "cpu")


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (("--format", "csv"), "file,words\ntexts/a.txt,2\ntexts/b.TXT,1\n"),
        (("--format", "counts"), "a=2\nb=1\n"),
        (("--format", "counts", "-o", "all.md"), "all.md\n"),
    ],
)
def test_a_sixth_family_brings_its_files_and_formats(
    texts: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], printed: str
) -> None:
    install(monkeypatch, predictor=WordCounter)
    done = infer(texts, *arguments)
    assert (done.code, done.stdout) == (2, printed), done.stderr
    assert done.line == "kdp: the text texts/c.txt has no words"
    assert "count words: 3 of 3" in done.stderr
    if "-o" in arguments:
        assert Path("all.md").read_text() == "a=2\nb=1\n"


def test_a_sixth_family_has_lines_of_json(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, predictor=WordCounter)
    lines = [json.loads(line) for line in infer(texts, "--headless").stdout.splitlines()]
    assert [(line["file"], line["words"]) for line in lines] == [
        ("texts/a.txt", 2),
        ("texts/b.TXT", 1),
    ]


def test_formats_of_another_family_are_unknown(
    texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, predictor=WordCounter)
    line = infer(texts, "--format", "dcase").line
    assert line.endswith("no format 'dcase' of tables; available: table, csv, json, md, counts")


def test_a_family_without_a_predictor_is_refused(
    texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    line = infer(texts).line
    assert line.endswith("n.pth holds 'cp_mobile': `infer` does not support this network")
