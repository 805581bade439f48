"""What `kdp experiments` shows of the settings that differ between runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from kdp.cli import app
from kdp.stages.experiments.list import list_experiments
from kdp.stages.experiments.results import FILES
from kdp.stages.experiments.varied import short_keys, varied

LR = {"train": {"lr": 1e-3, "steps": 100}}


def record(folder: Path, name: str, sparsity: float | None = None, **config: Any) -> None:
    """Write an experiment as small as can be read."""
    path = folder / name
    path.mkdir(parents=True)
    for file in FILES:
        (path / file).write_text("{}")
    info = {
        **{"exp_id": name, "timestamp": name, "config": "x", "notes": "", "pruning_step": None},
        **{"macro_avg_acc": 0.9, "params": 828, "primary_metric": "accuracy", "value": 0.9},
        **{"macs": {"count": 193552}, "bytes": {"fp32": 3312}},
        **{"sha256": "0", "device": "cpu", "threads": 1, "sparsity": sparsity},
    }
    (path / "info.json").write_text(json.dumps(info))
    (path / "config.yml").write_text(yaml.safe_dump(config))


def printed(folder: Path, *options: str, width: int = 100) -> str:
    runner = CliRunner(env={"COLUMNS": str(width)})
    result = runner.invoke(app, ["experiments", "--folder", str(folder), *options])
    assert result.exit_code == 0, result.exception
    return result.output


def test_settings_that_differ_are_columns_of_the_table(tmp_path: Path) -> None:
    record(tmp_path, "a", seed=1, device="cpu", **LR)
    record(tmp_path, "b", seed=2, device="cpu", **LR)
    title, _, *lines = [line for line in printed(tmp_path).splitlines() if line.strip()]
    assert "seed" in title.split()
    assert "device" not in title
    at = title.index("seed")
    assert [line[at : at + 4].strip() for line in lines] == ["1", "2"]


@pytest.mark.parametrize(
    ("sparsities", "shown"),
    [((0.0, 0.6304), ["0.0%", "63.0%"]), ((None, 0.25), ["25.0%"]), ((None, 0.0), [])],
)
def test_what_pruning_removed_is_shown_where_it_did(
    tmp_path: Path, sparsities: tuple[float | None, ...], shown: list[str]
) -> None:
    for name, sparsity in zip("ab", sparsities, strict=True):
        record(tmp_path, name, sparsity, seed=1)
    output = printed(tmp_path)
    assert ("sparsity" in output) == bool(shown)
    assert [word for word in output.split() if word.endswith("%")] == shown


def test_equal_runs_have_no_further_columns(tmp_path: Path) -> None:
    record(tmp_path, "a", seed=1, **LR)
    record(tmp_path, "b", seed=1, **LR)
    assert list_experiments(tmp_path).settings == [{}, {}]
    assert "seed" not in printed(tmp_path)


def test_a_section_that_one_run_lacks_is_left_empty(tmp_path: Path) -> None:
    record(tmp_path, "a", seed=1)
    record(tmp_path, "b", seed=1, distill={"losses": {"logits": {"weight": 0.5}}})
    assert list_experiments(tmp_path).settings == [
        {"distill.losses.logits.weight": None},
        {"distill.losses.logits.weight": 0.5},
    ]
    assert "weight" in printed(tmp_path)


def test_settings_follow_the_rows_when_they_are_sorted(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 4), ("c", 5)):
        record(tmp_path, name, seed=seed)
    listed = json.loads(printed(tmp_path, "--reverse", "--format", "json"))
    assert [row["exp_id"] for row in listed["rows"]] == ["c", "b", "a"]
    assert listed["settings"] == [{"seed": 5}, {"seed": 4}, {"seed": 3}]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_setting_is_lost_on_a_narrow_terminal(tmp_path: Path, width: int) -> None:
    keys = [f"setting{number}" for number in range(12)]
    for name in ("first-train-20251125-101500", "second-train-20251125-101500"):
        record(tmp_path, name, **{key: f"{name[0]}{key[7:]}" for key in keys})
    shown = printed(tmp_path, width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert all(key in shown for key in keys)
    assert all(f"s{number}" in shown.split() for number in range(12))


def test_names_are_as_short_as_they_are_unique() -> None:
    assert short_keys(["seed", "train.lr", "finetune.lr", "train.steps"]) == [
        "seed",
        "train.lr",
        "finetune.lr",
        "steps",
    ]
    assert varied([{"a": 1}, {"a": 1, "b": None}, {"a": 1}]) == [{}, {}, {}]
