"""The best network is chosen on recordings held out of the training list; the test is the last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdp.artifacts import load
from kdp.config import Config
from kdp.config.compose import load_config
from kdp.errors import Interrupted, KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.models.mobile import SCENES
from kdp.stages.train.train import train
from kdp.tasks import task_for
from kdp.tasks.scenes.section import SceneSamples
from kdp.tasks.scenes.task import AcousticScenes, load_clips
from kdp.training.shutdown import StopRequested
from kdp.types import Arch
from tests import runs
from tests.data.audio_helpers import write_esc50, write_tau
from tests.data.test_esc50 import CLASSES as ESC50
from tests.tasks.test_scenes import SMALL, STEPS

CLASSES = SCENES[:3]
SPLITS = {"split100.csv": "train", "test.csv": "test"}


@pytest.fixture(scope="module")
def tau(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: no test writes here."""
    return write_tau(tmp_path_factory.mktemp("tau") / "tau", CLASSES, SPLITS)


def clips(folder: Path, **keys: Any) -> dict[str, str]:
    """Names of recordings -> their places."""
    section = SceneSamples.model_validate({"kind": "scenes", "folder": folder, **keys})
    return {clip.name: clip.place for clip in load_clips(section, CLASSES, validation=True)}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("val", [0.05, 0.3])
def test_no_place_is_in_both_parts(tau: Path, seed: int, val: float) -> None:
    train_part, held_out = (
        clips(tau, split="split100.csv", part=part, seed=seed, val=val) for part in ("train", "val")
    )
    assert not set(train_part.values()) & set(held_out.values())
    assert {*train_part, *held_out} == {*clips(tau, split="split100.csv")}
    assert not {*held_out} & {*clips(tau)}
    # 4 of the 20 recordings of every class are of one place.
    assert len(held_out) == 3 * 4 * (2 if val == 0.3 else 1)
    devices = sorted(Path(name).stem.split("-")[-1] for name in held_out)
    assert devices == sorted(["a", "s1"] * (len(held_out) // 2))


def test_another_seed_holds_out_other_places(tau: Path) -> None:
    parts = [{*clips(tau, part="val", seed=seed).values()} for seed in range(6)]
    assert len({frozenset(part) for part in parts}) > 3


@pytest.mark.parametrize(
    "splits",
    [
        {"split100.csv": "train", "test.csv": "test"},
        {"split_setup/split100.csv": "train", "split_setup/test.csv": "test"},
        {
            "evaluation_setup/fold1_train.csv": "train",
            "evaluation_setup/fold1_evaluate.csv": "test",
        },
        {"evaluation_setup/fold1_train.csv": "train", "evaluation_setup/fold1_test.csv": "test"},
        {"evaluation_setup/fold1_train.csv": "train", "test.csv": "test"},
    ],
)
def test_splits_are_read_where_they_are_published(tmp_path: Path, splits: dict[str, str]) -> None:
    folder = write_tau(tmp_path / "tau", CLASSES[:1], splits, places=2)
    assert len(clips(folder, split="split100.csv")) == 4
    assert len(clips(folder)) == 6


@pytest.mark.parametrize("subset", [5, 10, 25, 50])
def test_a_missing_list_of_the_challenge_is_named_with_its_source(tau: Path, subset: int) -> None:
    line = rf"no split split{subset}\.csv; available: split100\.csv, test\.csv; github\.com/CPJKU"
    with pytest.raises(KdpError, match=line):
        clips(tau, subset=subset, part="val")


def scenes(folder: Path) -> dict[str, Any]:
    tau = write_tau(folder / "tau", CLASSES, SPLITS)
    kind = {"kind": "scenes", "folder": str(tau)}
    return {
        "model": {"name": "rep_mobile", "args": {**SMALL, "classes": list(CLASSES)}},
        "data": {**kind, "part": "train", "val": 0.3},
        "evaluation": {
            "val": {**kind, "part": "val", "val": 0.3},
            "test": {**kind, "at_end": True},
        },
        "train": STEPS,
    }


def esc50(folder: Path) -> dict[str, Any]:
    kind = {"kind": "esc50", "folder": str(write_esc50(folder / "ESC-50"))}
    return {
        "model": {"name": "cp_mobile", "args": {**SMALL, "classes": list(ESC50)}},
        "data": {**kind, "part": "train"},
        # The test comes first in the file and is still the last in the run.
        "evaluation": {
            "test": {**kind, "part": "test", "at_end": True},
            "val": {**kind, "part": "val"},
        },
        "train": STEPS,
    }


def super_resolution(folder: Path) -> dict[str, Any]:
    plain = runs.settings(folder)
    (section,) = plain["evaluation"].values()
    whole = {"kind": "embedded", "at_end": True}
    return {
        **{key: plain[key] for key in ("model", "data")},
        "evaluation": {"val": section, "test": whole},
        "train": {**runs.SHORT, "steps": 4},
    }


Family = Callable[[Path], dict[str, Any]]


def settings(folder: Path, plain: dict[str, Any], **changes: Any) -> Config:
    output = {"name": "tiny", "dir": str(folder / "w"), "runs": str(folder / "runs")}
    return Config.model_validate({"device": "cpu", "output": output, **plain, **changes})


@pytest.mark.parametrize("family", [scenes, esc50, super_resolution])
def test_the_test_set_is_measured_once_on_the_best_network(
    tmp_path: Path, family: Family, messages: list[str]
) -> None:
    config = settings(tmp_path, family(tmp_path))
    written = train(config)
    validations = [line for line in messages if "validation on" in line]
    assert len(validations) == config.train.steps // 2 if config.train else 0
    assert not any("test" in line for line in validations)
    (final,) = [line for line in messages if line.startswith("The best network, of step")]
    assert " test " in final
    assert "test/" not in (tmp_path / "runs/tiny_train/curves.csv").read_text()
    record = load(written["best"]).record
    assert record
    assert list(record.metrics) == ["val", "test"]
    model, arch, _ = load_network(written["best"])
    again = task_for(arch, config).evaluate(model)
    for name in ("val", "test"):
        expected = {key: record.metrics[name][key] for key in again[name]}
        assert again[name] == pytest.approx(expected, nan_ok=True)
    last = load(written["last"]).record
    assert last
    assert list(last.metrics) == ["val"]


def test_devices_and_their_groups_are_measured_on_the_test_set(tmp_path: Path) -> None:
    plain = scenes(tmp_path)
    args = plain["model"]["args"]
    task = AcousticScenes(Arch("rep_mobile", args), settings(tmp_path, plain))
    network = build("rep_mobile", **args)
    test = task.evaluate_at_end(network)["test"]
    assert {"device a", "device s1", "device s4"} <= test.keys()
    assert {"device group real", "device group seen", "device group unseen"} <= test.keys()
    assert {"device a", "device s1"} <= task.validate(network)["val"].keys()


def test_a_stop_while_the_test_set_is_measured_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, evaluate = scenes(tmp_path), AcousticScenes.evaluate_at_end
    expected = load(train(settings(tmp_path / "whole", plain))["best"])
    config = settings(tmp_path / "stopped", plain)

    def stop(*_: Any) -> None:
        raise StopRequested

    monkeypatch.setattr(AcousticScenes, "evaluate_at_end", stop)
    with pytest.raises(Interrupted, match=r"before the best network was measured; .* --resume"):
        train(config)
    monkeypatch.setattr(AcousticScenes, "evaluate_at_end", evaluate)
    resumed = load(train(config, resume=True)["best"])
    assert resumed.record
    assert expected.record
    assert resumed.record.metrics == expected.record.metrics
    assert all((resumed.params[key] == value).all() for key, value in expected.params.items())


@pytest.mark.parametrize("family", [scenes, esc50, super_resolution])
def test_training_needs_a_set_to_choose_by(tmp_path: Path, family: Family) -> None:
    plain = family(tmp_path)
    with pytest.raises(KdpError, match="an `evaluation` set without `at_end`, to pick the best"):
        train(settings(tmp_path, plain, evaluation={"test": plain["evaluation"]["test"]}))


@pytest.mark.parametrize("changed", [{"seed": 3}, {"val": 0.05}, {"part": None}])
def test_parts_that_overlap_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    plain = scenes(tmp_path)
    data = {**plain["data"], **changed}
    with pytest.raises(KdpError, match="evaluation set 'val' are in the training data too"):
        train(settings(tmp_path, plain, data=data))


CLIPS = {5: 6_980, 10: 13_960, 25: 34_900, 50: 69_810, 100: 139_620}
TEST_CLIPS = 29_680


@pytest.mark.parametrize("subset", CLIPS)
def test_validations_of_tau_hear_fewer_segments_than_three_tests(subset: int) -> None:
    config = load_config(Path("cp_mobile.yml"), ["scenes=tau", f"data.subset={subset}"])
    assert config.train
    held_out = round(0.05 * CLIPS[subset])
    lengths = config.train.in_steps(CLIPS[subset] - held_out)
    validations = lengths.steps / lengths.validate_every
    assert validations * held_out <= 3 * TEST_CLIPS
    assert validations <= 10
    assert [name for name, section in config.evaluation.items() if section.at_end] == ["test"]
    assert next(iter(config.evaluation)) == "val"


@pytest.mark.parametrize(("overlay", "count"), [("esc50", 50), ("esc50_esc10", 10), ("tau", 10)])
def test_overlays_of_published_sets_choose_by_a_part_of_training(overlay: str, count: int) -> None:
    overrides = [f"scenes={overlay}", "train.steps=600", "data.seed=7"]
    config = load_config(Path("rep_mobile.yml"), overrides)
    assert config.model
    assert config.train
    assert len(config.model.args.get("classes", SCENES)) == count
    assert (config.train.steps, config.train.epochs) == (600, None)
    own, val = config.data.model_dump(), config.evaluation["val"].model_dump()
    assert {key: own[key] for key in ("seed", "val", "folder")} == {
        key: val[key] for key in ("seed", "val", "folder")
    }
    assert (own["part"], val["part"]) == ("train", "val")
