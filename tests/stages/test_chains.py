"""Stages without `--config` continue the newest chain of the current folder."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kdp.config import Config
from kdp.errors import KdpError
from kdp.files import file_lock
from kdp.stages.chains import CHAINS_FILE, NO_CHAINS, OpenedChain, list_chains, open_chain
from kdp.stages.chains import merge_overrides as merge
from tests.runs import config_file


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a configuration of every stage and no weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(NO_CHAINS, raising=False)
    config_file(tmp_path, mac_constraint=0.8)
    return tmp_path


@pytest.fixture
def logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """What kdp logs."""
    monkeypatch.setattr(logging.getLogger("kdp"), "propagate", True)
    caplog.set_level(logging.INFO, logger="kdp")
    return caplog


def start(*overrides: str, stage: str = "prune", finished: bool = True) -> OpenedChain:
    """A chain that an explicit configuration has started."""
    chain = open_chain(stage, Path("config.yml"), overrides)
    chain.note(finished)
    return chain


def test_an_override_of_one_stage_holds_for_the_next() -> None:
    start("mac_constraint=0.5")
    assert open_chain("finetune", None, []).config.mac_constraint == 0.5


def test_a_new_override_replaces_the_old_one_and_keeps_the_others() -> None:
    start("mac_constraint=0.5", "seed=3")
    chain = open_chain("finetune", None, ["mac_constraint=0.6"])
    assert chain.overrides == ("seed=3", "mac_constraint=0.6")
    assert chain.config.mac_constraint == 0.6


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        (["distill.task_weight=2"], ["~distill"], ("~distill",)),
        (["+a.b=1"], ["++a.b=2"], ("++a.b=2",)),
        (["a=1"], ["a.b=2"], ("a=1", "a.b=2")),
    ],
    ids=["a key below", "another sign", "a key above stays"],
)
def test_overrides_are_replaced_by_key(
    old: list[str], new: list[str], merged: tuple[str, ...]
) -> None:
    assert merge(old, new) == merged


def test_the_device_is_not_inherited() -> None:
    start("device=cuda")
    assert open_chain("finetune", None, []).config.device == "cpu"


def test_an_explicit_configuration_inherits_nothing() -> None:
    start("mac_constraint=0.5")
    assert open_chain("finetune", Path("config.yml"), []).config.mac_constraint == 0.8


def test_the_newest_chain_is_used_and_named_with_its_overrides(
    logged: pytest.LogCaptureFixture,
) -> None:
    start("output.name=first")
    start("output.name=second", "seed=2")
    assert open_chain("finetune", None, []).config.output.name == "second"
    first, others = logged.messages
    assert "config.yml output.name=second seed=2" in first
    assert others.endswith("weights/first (prune)")


def test_another_stage_makes_its_chain_the_newest() -> None:
    start("output.name=first")
    start("output.name=second")
    start("output.name=first", stage="finetune")
    assert [(c.output_name, c.stage) for c in list_chains()] == [
        ("first", "finetune"),
        ("second", "prune"),
    ]


def test_chains_of_a_parent_folder_are_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    with pytest.raises(KdpError, match=r"no chain in this folder.*kdp prune --config"):
        open_chain("finetune", None, [])


def test_a_vanished_configuration_is_named(folder: Path) -> None:
    start()
    (folder / "config.yml").unlink()
    with pytest.raises(KdpError, match=r"config\.yml does not exist.*kdp prune --config"):
        open_chain("finetune", None, [])


def test_a_missing_section_is_named_with_the_chains_to_choose_from(folder: Path) -> None:
    start("output.name=first")
    start("output.name=unable", "~finetune")
    start("output.name=second", "~finetune")
    message = r"second.*lacks the section `finetune`.*output.name=first"
    with pytest.raises(KdpError, match=message) as error:
        open_chain("finetune", None, [])
    assert "unable" not in str(error.value)


def test_a_chain_whose_stage_is_running_is_refused(folder: Path) -> None:
    start()
    with (
        file_lock(folder / "weights" / "tiny_pruning_masks.pth"),
        pytest.raises(KdpError, match=r"is running .*tiny_pruning_masks\.pth"),
    ):
        open_chain("finetune", None, [])
    assert open_chain("finetune", None, []).path == Path("config.yml")


def test_a_stage_does_not_continue_from_one_that_was_stopped() -> None:
    start("output.name=first")
    start("output.name=second", finished=False)
    with pytest.raises(KdpError, match=r"kdp prune .*second, did not finish.*kdp prune --resume"):
        open_chain("finetune", None, [])
    for stage in ("prune", "train", "validate"):
        assert open_chain(stage, None, []).config.output.name == "second"


def test_points_of_a_sweep_record_no_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NO_CHAINS, "1")
    start()
    assert not CHAINS_FILE.exists()


def test_only_the_main_process_records_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    start()
    assert not CHAINS_FILE.exists()


def test_a_folder_that_cannot_be_written_is_one_warning(logged: pytest.LogCaptureFixture) -> None:
    Path(".kdp").touch()
    start().note(finished=True)
    (warning,) = logged.messages
    assert "cannot write .kdp/chains.json" in warning


def test_damaged_chains_are_named() -> None:
    CHAINS_FILE.parent.mkdir()
    CHAINS_FILE.write_text('{"chains": [')
    with pytest.raises(KdpError, match=r"chains\.json is damaged"):
        open_chain("finetune", None, [])


def fake_stage(valid: bool = True, fails: bool = False) -> Callable[..., None]:
    def stage(config: Config, on_ready: Callable[[], None]) -> None:
        if not valid:
            raise KdpError("an input is missing")
        on_ready()
        if fails:
            raise KdpError("the disk is full")

    return stage


def noted() -> list[bool]:
    """Whether the stage of each chain has finished."""
    return [chain.finished for chain in list_chains()]


def test_a_stage_is_recorded_once_its_inputs_are_valid_and_on_success() -> None:
    chain = open_chain("prune", Path("config.yml"), [])
    with pytest.raises(KdpError, match="input"):
        chain.run(fake_stage(valid=False))
    assert noted() == []
    with pytest.raises(KdpError, match="disk"):
        chain.run(fake_stage(fails=True))
    assert noted() == [False]
    chain.run(fake_stage())
    assert noted() == [True]


def test_concurrent_runs_lose_no_record() -> None:
    children = []
    for number in range(6):
        if (child := os.fork()) == 0:
            start(f"output.name=run{number}")
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert {chain.output_name for chain in list_chains()} == {f"run{n}" for n in range(6)}
    assert json.loads(CHAINS_FILE.read_text())["version"] == 1
