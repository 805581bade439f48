"""Results and tracked files are not replaced without `--overwrite`."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import load
from kdp.config import Config
from kdp.errors import Interrupted, KdpError
from kdp.files import file_lock
from kdp.stages.paths import chain_paths
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.replacing import check_targets, tracked_by_git
from kdp.stages.train.finetune import finetune
from kdp.stages.train.train import train
from kdp.stages.validate import validate
from kdp.tasks.super_resolution.task import SuperResolution
from tests import runs
from tests.runs import DATA_CHANGES, SHORT, change_data, config

SMALL: dict[str, Any] = {
    "prune": {"criterion": "magnitude", "calibration": {"patches": 2, "patch_size": 10}},
    "measure": {"input_size": [16, 16]},
    "mac_constraint": 0.8,
}
STEPS = {**SHORT, "steps": 2, "checkpoint_every": 1}


def short(folder: Path, **changes: Any) -> Config:
    """A training of two steps without a teacher."""
    return config(folder, **{"train": STEPS, "distill": None, **changes})


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def track(folder: Path, path: Path) -> None:
    """Put a file under version control."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--force", str(path))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder in which a network was trained for two steps."""
    train(short(tmp_path))
    return tmp_path


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the checkpoint of the first of two steps."""
    interrupt(short(tmp_path), monkeypatch)
    return tmp_path


def interrupt(settings: Config, monkeypatch: pytest.MonkeyPatch, **options: bool) -> None:
    """Stop a training in its second step."""
    loss, calls = SuperResolution.loss, []

    def fails(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted("stopped")
        return loss(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SuperResolution, "loss", fails)
        with pytest.raises(Interrupted):
            train(settings, **options)


def test_a_file_that_git_tracks_is_found_beside_others(tmp_path: Path) -> None:
    for name in ("a [1].pth", "b.pth"):
        (tmp_path / name).touch()
    track(tmp_path, tmp_path / "a [1].pth")
    files = [tmp_path / "a [1].pth", tmp_path / "b.pth"]
    assert tracked_by_git(files) == {files[0]}


def test_a_tracked_result_is_not_replaced(trained: Path) -> None:
    path = trained / "weights" / "tiny.pth"
    track(trained, path)
    before = path.read_bytes()
    with pytest.raises(KdpError, match=r"tiny\.pth would be replaced, and git tracks it"):
        train(short(trained))
    assert path.read_bytes() == before


def test_validate_names_a_result_that_is_protected(trained: Path) -> None:
    track(trained, trained / "weights" / "tiny.pth")
    *_, last = validate(short(trained))
    assert not last.passed
    assert "git tracks it" in last.message


@pytest.mark.parametrize("name", ["tiny_last.pth", "../runs/tiny_train/curves.csv"])
def test_every_file_of_a_training_is_checked(trained: Path, name: str) -> None:
    track(trained, trained / "weights" / name)
    with pytest.raises(KdpError, match="git tracks it"):
        train(short(trained))


def test_overwrite_replaces_a_tracked_result(trained: Path) -> None:
    path = trained / "weights" / "tiny.pth"
    track(trained, path)
    before = path.read_bytes()
    train(short(trained), overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize("content", [b"notes", None], ids=["no checkpoint", "of another program"])
def test_a_file_that_kdp_did_not_write_is_not_replaced(
    trained: Path, content: bytes | None
) -> None:
    path = trained / "weights" / "tiny.pth"
    if content is None:
        torch.save(load(path).params, path)
    else:
        path.write_bytes(content)
    with pytest.raises(KdpError, match="kdp did not write it"):
        check_targets([path])
    check_targets([path], overwrite=True)


def test_prune_and_rebuild_replace_what_kdp_made_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs.prune(tmp_path)
    settings = config(tmp_path, **SMALL)
    caplog.set_level(logging.INFO, "kdp")
    prune(config(tmp_path, **{**SMALL, "mac_constraint": 0.7}))
    rebuild(config(tmp_path, **{**SMALL, "mac_constraint": 0.7}))
    prune(settings)
    rebuild(settings)
    paths = chain_paths(settings)
    changed = "made with mac_constraint=0.7, now mac_constraint=0.8"
    assert f"Replacing {paths.pruned}, {paths.masks}, {changed}" in caplog.text
    assert f"Replacing {paths.rebuilt}, made from {paths.pruned}" in caplog.text
    track(tmp_path, paths.pruned)
    track(tmp_path, paths.rebuilt)
    with pytest.raises(KdpError, match=r"tiny_pruned\.pth would be replaced"):
        prune(settings)
    with pytest.raises(KdpError, match=r"tiny_rebuilt\.pth would be replaced"):
        rebuild(settings)
    prune(settings, overwrite=True)
    rebuild(settings, overwrite=True)


def test_training_again_with_the_same_settings_needs_no_overwrite(trained: Path) -> None:
    train(short(trained, data={**short(trained).plain()["data"], "workers": 0}, device="auto"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {**STEPS, "lr": 1e-4}}, r"made with train\.lr=0\.001, now train\.lr=0\.0001"),
        ({"seed": 7}, "made with seed=0, now seed=7"),
        ({"train": {**STEPS, "steps": 1}}, "took 2 steps, this run 1"),
    ],
    ids=["settings", "seed", "fewer steps"],
)
def test_a_result_of_other_settings_is_not_replaced(
    trained: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdpError, match=message):
        train(short(trained, **changes))
    train(short(trained, **changes), overwrite=True)


def test_a_longer_training_replaces_a_shorter_one(trained: Path) -> None:
    train(short(trained, train={**STEPS, "steps": 3}))


def test_fine_tuning_of_other_masks_is_not_replaced(tmp_path: Path) -> None:
    runs.prune(tmp_path)
    settings = config(tmp_path, **SMALL, finetune=STEPS)
    prune(settings)
    finetune(settings)
    other = config(tmp_path, **{**SMALL, "mac_constraint": 0.7}, finetune=STEPS)
    prune(other)
    with pytest.raises(KdpError, match=r"made with mac_constraint=0\.8, now mac_constraint=0\.7"):
        finetune(other)


def test_pruning_again_does_not_protect_the_fine_tuned_network(tmp_path: Path) -> None:
    runs.prune(tmp_path)
    settings = config(tmp_path, **SMALL, finetune=STEPS)
    for _ in range(2):
        prune(settings)
        finetune(settings)


UNFINISHED = r"checkpoint\.pth holds an unfinished run at step 1: --resume or --overwrite"


def test_an_unfinished_run_is_named_with_its_step(interrupted: Path) -> None:
    with pytest.raises(KdpError, match=UNFINISHED):
        train(short(interrupted))
    assert train(short(interrupted), resume=True)["best"].exists()
    train(short(interrupted))  # it has finished


def test_an_unfinished_run_over_an_older_result_is_named(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(short(trained, seed=7), monkeypatch, overwrite=True)
    for seed in (0, 7, 8):
        with pytest.raises(KdpError, match=UNFINISHED):
            train(short(trained, seed=seed))


def test_an_unfinished_run_of_another_folder_for_networks_is_named(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**short(trained).plain()["output"], "dir": str(trained / "other")}
    interrupt(short(trained, output=other), monkeypatch)
    with pytest.raises(KdpError, match=UNFINISHED):
        train(short(trained))
    train(short(trained, output=other), resume=True)
    train(short(trained))


@pytest.mark.parametrize("name", ["weights", "other", "runs"])
def test_two_trainings_with_one_run_folder_are_kept_apart(tmp_path: Path, name: str) -> None:
    output = {**short(tmp_path).plain()["output"], "dir": str(tmp_path / name)}
    folder = tmp_path / "runs" / "tiny_train"
    with file_lock(folder), pytest.raises(KdpError, match=f"another run is writing {folder}"):
        train(short(tmp_path, output=output))
    train(short(tmp_path, output=output))


def test_two_fine_tunings_with_one_run_folder_are_kept_apart(tmp_path: Path) -> None:
    runs.prune(tmp_path)
    settings = config(tmp_path, **SMALL, finetune=STEPS)
    prune(settings)
    folder = chain_paths(settings).checkpoint.parent
    with file_lock(folder), pytest.raises(KdpError, match=f"another run is writing {folder}"):
        finetune(settings)


def test_overwrite_starts_an_unfinished_run_over(interrupted: Path) -> None:
    checkpoint = interrupted / "runs" / "tiny_train" / "checkpoint.pth"
    before = checkpoint.stat().st_mtime_ns
    train(short(interrupted), overwrite=True)
    assert checkpoint.stat().st_mtime_ns > before


def test_resuming_replaces_an_unchanged_result(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = short(trained, seed=7)
    interrupt(changed, monkeypatch, overwrite=True)
    assert load(train(changed, resume=True)["best"]).record.seed == 7


def test_resuming_does_not_replace_a_result_that_changed(interrupted: Path) -> None:
    path = interrupted / "weights" / "tiny.pth"
    path.write_bytes(b"somebody else's")
    with pytest.raises(KdpError, match="kdp did not write it"):
        train(short(interrupted), resume=True)


@pytest.mark.parametrize("change", DATA_CHANGES)
def test_a_run_does_not_resume_on_other_images(interrupted: Path, change: str) -> None:
    change_data(interrupted / "images", change)
    with pytest.raises(KdpError, match=r"other settings \(samples\)"):
        train(short(interrupted), resume=True)


def test_a_rerun_starts_over_where_the_checkpoint_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["kdp", "train", "--rerun"])
    train(short(tmp_path), rerun=True)
    interrupt(short(tmp_path, seed=7), monkeypatch, rerun=True)
    assert load(train(short(tmp_path, seed=8), rerun=True)["best"]).record.seed == 8


def test_a_rerun_replaces_no_result_made_by_hand(trained: Path) -> None:
    with pytest.raises(KdpError, match="seed=0, now seed=7"):
        train(short(trained, seed=7), rerun=True)


def test_a_rerun_never_replaces_what_git_tracks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["kdp", "train", "--rerun"])
    train(short(tmp_path), rerun=True)
    track(tmp_path, tmp_path / "weights" / "tiny.pth")
    with pytest.raises(KdpError, match="git tracks it"):
        train(short(tmp_path), rerun=True)


def test_runs_in_two_folders_do_not_share_logs() -> None:
    folders = ["weights", "runs", "runs/toy_faces", "toy", "/tmp/weights"]
    configs = [Config.model_validate({"output": {"name": "a", "dir": d}}) for d in folders]
    logs = [settings.output.runs for settings in configs]
    assert logs[0] == Path("runs")
    assert len({path.resolve() for path in logs}) == len(logs)
    given = {"output": {"name": "a", "dir": "toy", "runs": "elsewhere"}}
    assert Config.model_validate(given).output.runs == Path("elsewhere")
