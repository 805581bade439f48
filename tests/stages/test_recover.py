"""`kdp recover`: a stage of its own, whose result the later stages read."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import load
from kdp.errors import Interrupted, KdpError
from kdp.models.loading import load_network
from kdp.pruning.masks import removed_are_zero
from kdp.stages.clean import clean
from kdp.stages.export.export import ExportRequest, export
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.prune.recover import recover
from kdp.stages.train.finetune import finetune
from kdp.tasks.super_resolution.groups import catanet_groups
from tests.in_process import call_kdp
from tests.runs import config, config_file
from tests.runs import prune as write_teacher

SETTINGS: dict[str, Any] = {
    "prune": {"criterion": "magnitude", "calibration": {"patches": 2, "patch_size": 10}},
    "mac_constraint": 0.8,
    "measure": {"input_size": [16, 16]},
}
RECOVER = {"samples": 8, "holdout": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a teacher and what was pruned from it."""
    write_teacher(tmp_path)
    for path in (tmp_path / "weights").iterdir():
        path.unlink()
    prune(config(tmp_path, **SETTINGS))
    return tmp_path


def weights(folder: Path, stage: str) -> Path:
    return folder / "weights" / f"tiny_{stage}.pth"


def test_a_pruned_network_is_recovered(folder: Path) -> None:
    file = config_file(folder, **SETTINGS, recover=RECOVER)
    done = call_kdp("recover", "--config", file)
    assert done.code == 0, done.stderr
    assert "layers refitted; distance of outputs" in " ".join(done.stdout.split())
    assert done.stdout.splitlines()[-1] == str(weights(folder, "recovered"))
    model, _, artifact = load_network(weights(folder, "recovered"))
    masks = load(weights(folder, "pruning_masks")).extra["masks"]
    assert removed_are_zero(model, catanet_groups(model), masks)
    reached = artifact.record.metrics["recovery"]
    assert reached["distance_after"] < reached["distance_before"]
    names = [Path(parent.path).name for parent in artifact.record.parents]
    assert names == ["tiny_pruned.pth", "tiny_pruning_masks.pth", "teacher.pth"]


def test_it_is_what_the_last_step_of_prune_gives(folder: Path) -> None:
    recover(config(folder, **SETTINGS, recover=RECOVER))
    at_once = prune(config(folder, **SETTINGS, recover=RECOVER))
    expected, params = load(at_once.pruned).params, load(weights(folder, "recovered")).params
    assert all(torch.equal(params[name], value) for name, value in expected.items())


def test_later_stages_read_it_and_say_so(folder: Path, messages: list[str]) -> None:
    settings = config(folder, **SETTINGS, recover=RECOVER)
    recovered = recover(settings).path
    rebuild(settings)
    assert f"Rebuilding the recovered network {recovered}" in " ".join(messages)
    record = load(finetune(settings)["finetuned"]).record
    assert f"Fine-tuning the recovered network {recovered}" in messages
    assert record.parents[0].path == str(recovered)


def test_another_network_can_be_named(folder: Path) -> None:
    file = config_file(folder, **SETTINGS, recover=RECOVER)
    assert call_kdp("recover", "--config", file).code == 0
    done = call_kdp("finetune", "--config", file, "--from", weights(folder, "pruned"))
    assert done.code == 0, done.stderr
    (finetuned,) = (folder / "weights").glob("tiny_finetuned_*.pth")
    assert load(finetuned).record.parents[0].path == str(weights(folder, "pruned"))


@pytest.mark.parametrize("change", [{"mac_constraint": 0.7}, {"recover": RECOVER}])
def test_one_of_an_earlier_pruned_network_is_left_aside(
    folder: Path, messages: list[str], change: dict[str, Any]
) -> None:
    recover(config(folder, **SETTINGS, recover=RECOVER))
    changed = config(folder, **{**SETTINGS, **change})
    prune(changed)
    rebuilt = rebuild(changed)
    assert any("from an earlier" in message and "kdp recover" in message for message in messages)
    assert load(rebuilt.path).record.parents[0].path == str(weights(folder, "pruned"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": None}, "kdp recover needs `teacher`"),
        ({"mac_constraint": 0.5}, "was made with mac_constraint=0.8, now mac_constraint=0.5"),
        ({"recover": {"samples": 1}}, "1 calibration sample is too few"),
        ({"dynamic": {"end_step": 4}}, "for networks that kdp prune has pruned"),
    ],
)
def test_what_cannot_be_recovered_is_one_line(
    folder: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(KdpError, match=words):
        recover(config(folder, **{**SETTINGS, **change}))
    assert not weights(folder, "recovered").exists()


def test_the_network_before_pruning_is_needed(folder: Path) -> None:
    (folder / "teacher.pth").unlink()
    with pytest.raises(KdpError, match="name the file with teacher=FILE"):
        recover(config(folder, **SETTINGS))


def test_nothing_is_written_when_it_is_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("kdp.pruning.recovery.recover.refit_layer", stop)
    with pytest.raises(Interrupted, match="nothing was written"):
        recover(config(folder, **SETTINGS, recover=RECOVER))
    assert not weights(folder, "recovered").exists()


def test_a_file_of_the_user_is_not_replaced(folder: Path) -> None:
    weights(folder, "recovered").write_bytes(b"notes")
    with pytest.raises(KdpError, match="kdp did not write it"):
        recover(config(folder, **SETTINGS, recover=RECOVER))
    assert weights(folder, "recovered").read_bytes() == b"notes"


def test_it_is_cleaned_and_not_exported(folder: Path) -> None:
    settings = config(folder, **SETTINGS, recover=RECOVER)
    recovered = recover(settings).path
    with pytest.raises(KdpError, match="rebuild"):
        export(recovered, ExportRequest("onnx"), settings)
    assert recovered in clean(settings)
    assert not recovered.exists()
