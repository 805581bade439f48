"""`kdp clean` deletes what records of a configuration name; `kdp paths` is safe to include."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kdp.artifacts import Artifact, make_record, save
from kdp.config import Config
from kdp.errors import KdpError
from kdp.files import file_lock
from kdp.stages.clean import clean
from kdp.stages.paths import chain_paths, make_variables
from tests.runs import config


def write(path: Path, settings: Config) -> Path:
    """An artifact that a stage of this configuration could have written."""
    save(path, Artifact({}, record=make_record("train", settings.plain())))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    return config(tmp_path, mac_constraint=0.5)


def test_artifacts_checkpoints_and_logs_are_deleted(settings: Config, tmp_path: Path) -> None:
    paths = chain_paths(settings)
    files = [write(path, settings) for path in (paths.masks, paths.trained, paths.last)]
    save(paths.training, Artifact({}, extra={"training": {}}))
    logs = {
        paths.training.with_name("curves.csv"): "step,loss\n",
        paths.training.with_name("curves.jsonl"): "",
        paths.table: "|  | 1: tiny |\n",
    }
    for path, text in logs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert len(clean(settings)) == len(files) + 4
    assert not list(tmp_path.glob("weights/*"))
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize("ending", ["kdp-tmp", "kdp-lock", "swp"])
def test_what_killed_runs_left_is_deleted(settings: Config, ending: str) -> None:
    left = chain_paths(settings).training.with_name(f".checkpoint.pth.1-ab.{ending}")
    left.parent.mkdir(parents=True)
    left.touch()
    assert clean(settings) == []
    assert left.exists() == (ending == "swp")


def test_rounds_are_deleted(settings: Config, tmp_path: Path) -> None:
    output = settings.output.model_copy(update={"name": "tiny_round1"})
    round_config = settings.model_copy(update={"output": output})
    path = write(tmp_path / "weights" / "tiny_round1_rebuilt.pth", round_config)
    assert clean(settings) == [path]


def test_files_of_another_configuration_stay(settings: Config, tmp_path: Path) -> None:
    output = settings.output.model_copy(update={"name": "other"})
    write(chain_paths(settings).trained, settings.model_copy(update={"output": output}))
    (tmp_path / "weights" / "notes.txt").touch()
    assert clean(settings) == []
    assert chain_paths(settings).trained.exists()


def test_what_git_tracks_and_what_kdp_did_not_write_stay(settings: Config, tmp_path: Path) -> None:
    paths = chain_paths(settings)
    write(paths.trained, settings)
    paths.rebuilt.write_bytes(b"somebody's")
    for command in (["init", "--quiet"], ["add", "--force", str(paths.trained)]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    assert clean(settings) == []
    assert paths.trained.exists()
    assert paths.rebuilt.exists()


@pytest.mark.parametrize("name", ["compare.md", "compare.csv", "compare.json"])
def test_notes_under_the_name_of_a_table_stay(settings: Config, name: str) -> None:
    notes = chain_paths(settings).table.with_name(name)
    notes.parent.mkdir(parents=True)
    notes.write_text("my measurements\n")
    assert clean(settings) == []
    assert notes.exists()


@pytest.mark.parametrize("name", ["*", "[a-z]*", "tin?"])
def test_a_name_is_not_a_pattern(settings: Config, tmp_path: Path, name: str) -> None:
    curves = tmp_path / "runs" / "tiny_round1_finetune_fakd" / "curves.csv"
    curves.parent.mkdir(parents=True)
    curves.write_text("step,loss\n")
    output = settings.output.model_copy(update={"name": name})
    assert clean(settings.model_copy(update={"output": output})) == []
    assert clean(settings) == [curves]


def test_nothing_is_deleted_while_a_stage_is_running(settings: Config) -> None:
    path = write(chain_paths(settings).trained, settings)
    with file_lock(path), pytest.raises(KdpError, match="a stage is writing"):
        clean(settings)
    assert path.exists()


FOLDERS = ["a b", "a;b", "$(touch x)", "$(shell touch x)", "a#b", "-a", "a=b", "a\nb"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_path_that_make_would_misread_is_refused(folder: str) -> None:
    settings = Config.model_validate({"output": {"name": "a", "dir": folder}})
    with pytest.raises(KdpError, match="cannot be a target of make"):
        make_variables(settings)


@pytest.mark.parametrize("name", ["clean", ".PHONY", "setup"])
def test_a_file_that_make_would_take_for_a_goal_is_refused(settings: Config, name: str) -> None:
    with pytest.raises(KdpError, match="cannot be a target of make"):
        make_variables(settings.model_copy(update={"teacher": Path(name)}))


def test_files_dated_in_the_future_are_listed_apart(
    settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    now, future = Path("now.yml"), Path("future.yml")
    for path in (now, future):
        path.touch()
    os.utime(future, (4e9, 4e9))
    lines = make_variables(config(Path()), [now, future]).splitlines()
    assert lines[:2] == ["CONFIGS := now.yml", "FUTURE := future.yml"]
    assert "future.yml (touch it)" in messages[0]


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["offline-run-20261201_120000-ab12/run-ab12.wandb", "debug.log", "logs/core.log"], False),
        (["run-20261201_120000-ab12/files/config.yaml", "latest-run"], False),
        (["offline-run-20261201_120000-ab12/run-ab12.wandb", "thesis.txt"], True),
        (["code.py"], True),
    ],
)
def test_runs_of_wandb_are_deleted_and_nothing_else(
    settings: Config, names: list[str], kept: bool
) -> None:
    folder = chain_paths(settings).training.parent
    for name in names:
        path = folder / "wandb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "curves.jsonl").write_text('{"step": 1}\n')
    clean(settings)
    assert folder.exists() == kept
    assert all((folder / "wandb" / name).exists() == kept for name in names)


def test_a_folder_wandb_without_a_run_of_kdp_stays(settings: Config) -> None:
    folder = chain_paths(settings).training.parent / "wandb" / "run-1"
    folder.mkdir(parents=True)
    clean(settings)
    assert folder.exists()
