"""Records that somebody edited end a command with one line that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdp.stages.chains import CHAINS_FILE
from kdp.stages.paths import chain_paths
from tests.in_process import call_kdp
from tests.stages.test_experiment_settings import record
from tests.stages.test_rounds import config, settings
from tests.test_contents import GONE, changed

CHAIN = {
    **{"config": "config.yml", "overrides": ["seed=1"], "output": {"dir": "w", "name": "tiny"}},
    **{"stage": "prune", "time": "2030-01-01T00:00:00Z", "finished": True},
}
NESTED = "[" * 100_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(*arguments: str) -> str:
    """The only line of a command that ends with code 2."""
    ended = call_kdp(*arguments)
    assert (ended.code, len(ended.stderr.splitlines())) == (2, 1), ended.stderr
    return ended.line


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ([], [1]),
        (["notes"], 3),
        (["timestamp"], None),
        (["params"], "828"),
        pytest.param(["params"], 10**400, id="huge params"),
        (["macs", "count"], [1]),
        (["bytes", "fp32"], None),
        (["primary_metric"], {"a": 1}),
        (["value"], "high"),
        pytest.param(["value"], 10**400, id="huge value"),
        (["sha256"], 5),
        (["device"], 0),
        (["threads"], GONE),
        (["threads"], 0),
    ],
)
def test_an_edited_experiment_is_named(keys: list[Any], value: Any) -> None:
    record(Path("e"), "a")
    path = Path("e", "a", "info.json")
    path.write_text(json.dumps(changed(json.loads(path.read_text()), keys, value)))
    assert "e/a/info.json is damaged" in refusal("reproduce", "e/a")
    listing = call_kdp("experiments", "--folder", "e")
    assert listing.code == 0
    assert "left out: e/a/info.json is damaged" in listing.stdout


def test_an_experiment_of_an_earlier_version_is_listed() -> None:
    record(Path("e"), "a")
    path = Path("e", "a", "info.json")
    path.write_text(path.read_text().replace("primary_metric", "headline"))
    listing = call_kdp("experiments", "--folder", "e", "--format", "json")
    (row,) = json.loads(listing.stdout)["rows"]
    assert row["primary_metric"] == "accuracy"


@pytest.mark.parametrize("name", ["metrics.json", "config.yml"])
@pytest.mark.parametrize("text", ["[1]", "3", NESTED, "{a: 2030-01-01}"])
def test_other_edited_files_of_an_experiment_are_named(name: str, text: str) -> None:
    for experiment in ("a", "b"):
        record(Path("e"), experiment)
    Path("e", "a", name).write_text(text)
    line = refusal("experiments", "--folder", "e", "--diff", "a", "b")
    assert name in line


@pytest.mark.parametrize("row", ["{0}", "a,{0}", 'a,"{0}\n{0}"'])
def test_a_field_that_is_too_long_for_csv_is_named(row: str) -> None:
    record(Path("e"), "a")
    Path("e", "results.csv").write_text("exp_id,notes\n" + row.format("x" * 140_000) + "\n")
    assert "e/results.csv is damaged" in refusal("experiments", "--folder", "e")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["chains"], 1),
        (["chains", 0], "x"),
        (["chains", 0, "overrides"], [1]),
        (["chains", 0, "overrides"], "seed=1"),
        (["chains", 0, "overrides"], ["seed=\0"]),
        (["chains", 0, "config"], "a\0"),
        (["chains", 0, "output", "name"], None),
        (["chains", 0, "stage"], ["prune"]),
        (["chains", 0, "finished"], "no"),
    ],
)
@pytest.mark.parametrize("command", ["chains", "finetune"])
def test_edited_chains_are_named(command: str, keys: list[Any], value: Any) -> None:
    CHAINS_FILE.parent.mkdir()
    CHAINS_FILE.write_text(json.dumps(changed({"version": 1, "chains": [CHAIN]}, keys, value)))
    line = refusal(command)
    assert ".kdp/chains.json is damaged at chains" in line
    assert line.endswith("delete it and give --config")


@pytest.mark.parametrize(
    "states",
    [
        {"key": {}},
        ["x"],
        [{"key": [1]}],
        [{"key": {}, "rebuilt": ["0"]}],
        [{"key": {}, "rebuilt": ["0"], "row": {"round": 1}}],
        [{"key": {}, "rebuilt": "0", "row": None}],
    ],
)
def test_edited_progress_of_rounds_is_named(tmp_path: Path, states: Any) -> None:
    Path("config.yml").write_text(yaml.safe_dump(settings(tmp_path)))
    path = chain_paths(config(tmp_path)).rounds
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(states))
    line = refusal("prune", "--config", "config.yml", "--resume")
    assert "rounds.json is damaged" in line
    assert line.endswith("delete it")
