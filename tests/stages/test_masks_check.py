"""Masks of a different pruning configuration are refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from kdp.artifacts import Artifact, save
from kdp.config import Config
from kdp.errors import KdpError
from kdp.files import sha256
from kdp.models.loading import load_network
from kdp.stages.paths import chain_paths
from kdp.stages.prune.masks_check import check_masks_fit
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.prune.request import MasksRequest
from tests import runs
from tests.runs import config

SMALL: dict[str, Any] = {
    "prune": {"criterion": "magnitude", "calibration": {"patches": 2, "patch_size": 10}},
    "measure": {"input_size": [16, 16]},
    "mac_constraint": 0.8,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose network was pruned; tests do not change it."""
    folder = tmp_path_factory.mktemp("pruned")
    runs.prune(folder)
    prune(config(folder, **SMALL))
    return folder


@pytest.fixture
def logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """What kdp logs."""
    monkeypatch.setattr(logging.getLogger("kdp"), "propagate", True)
    caplog.set_level(logging.INFO, logger="kdp")
    return caplog


def check(settings: Config) -> None:
    check_masks_fit(MasksRequest.from_config(settings), chain_paths(settings).masks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mac_constraint": 0.7}, r"mac_constraint=0\.8, .*mac_constraint=0\.7"),
        (
            {"mac_constraint": None, "pruning_ratio": 0.5},
            r"mac_constraint=0\.8, now mac_constraint=None",
        ),
        ({"prune": {**SMALL["prune"], "criterion": "optin"}}, "criterion=magnitude, .*=optin"),
        (
            {"prune": {**SMALL["prune"], "calibration": {"patches": 3, "patch_size": 10}}},
            "patches=2, .*=3",
        ),
        ({"prune": {**SMALL["prune"], "min_units": {"heads": 2}}}, "heads=None, .*=2"),
        ({"seed": 4}, "seed=0, .*seed=4"),
        ({"model": {"name": "catanet", "args": {"dim": 12}}}, "dim=8, .*dim=12"),
    ],
    ids=["budget", "kind of budget", "criterion", "calibration", "prune", "seed", "model"],
)
def test_a_change_of_settings_that_affect_the_masks_is_named(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdpError, match=message):
        check(config(folder, **{**SMALL, **changes}))


def test_settings_that_do_not_affect_the_masks_may_change(folder: Path) -> None:
    changes = {"device": "auto", "finetune": None, "tiles": {"size": 64}, "model": None}
    check(config(folder, **{**SMALL, **changes}))


def test_an_explicit_default_is_not_a_change(folder: Path) -> None:
    check(config(folder, **{**SMALL, "prune": {**SMALL["prune"], "min_units": {}}}))


def test_a_teacher_with_other_content_is_named(folder: Path, tmp_path: Path) -> None:
    model, arch, _ = load_network(folder / "teacher.pth")
    params = {name: 2 * tensor for name, tensor in model.state_dict().items()}
    save(tmp_path / "other.pth", Artifact(params, arch))
    with pytest.raises(KdpError, match=rf"{sha256(folder / 'teacher.pth')[:12]}.*other\.pth"):
        check(config(folder, **SMALL, teacher=str(tmp_path / "other.pth")))


def test_a_moved_teacher_is_not_a_change(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.pth").write_bytes((folder / "teacher.pth").read_bytes())
    check(config(folder, **SMALL, teacher=str(tmp_path / "copy.pth")))


def test_rebuild_refuses_masks_of_another_budget(folder: Path) -> None:
    with pytest.raises(KdpError, match="mac_constraint"):
        rebuild(config(folder, **{**SMALL, "mac_constraint": 0.7}))


def test_rebuild_right_after_prune_takes_the_pruned_network(
    folder: Path, logged: pytest.LogCaptureFixture
) -> None:
    done = rebuild(config(folder, **SMALL))
    assert done.parameters < done.full_parameters
    assert "tiny_pruned.pth: no network was fine-tuned yet" in logged.text
