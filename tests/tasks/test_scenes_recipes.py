"""The shipped recipes of acoustic scenes: what they record, track and train for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdp.config.compose import load_config
from kdp.config.lookup import find_config
from kdp.stages.prune.round import RoundsRequest
from tests.in_process import call_kdp
from tests.wandb_fake import FakeRun, install_wandb

TRAINED = ["cp_mobile.yml", "rep_mobile.yml", "rep_mobile_kd.yml", "scenes_teacher.yml"]
NETWORK = "model.args={stem: 4, channels: [8, 8], hidden: [10, 12], strides: [[2, 2], [2, 2]]}"
SHORT = [
    f"{section}.{key}" for section in ("train", "finetune") for key in ("steps=1", "batch_size=4")
]
SCHEDULE = "prune_schedule.yml"


@pytest.mark.parametrize("data", ["toy", "esc10", "tau"])
@pytest.mark.parametrize("name", [*TRAINED, SCHEDULE])
def test_every_recipe_is_recorded_and_tracked(name: str, data: str) -> None:
    config = load_config(find_config(Path(name)), [f"scenes={data}"])
    assert config.experiments is not None
    section = config.finetune if name == SCHEDULE else config.train
    assert section.trackers == ["wandb"]


@pytest.mark.parametrize(
    ("overrides", "epochs", "steps"),
    [
        (["scenes=tau"], [30] * 3, [None] * 3),
        (["scenes=tau", "data.subset=5"], [30] * 3, [None] * 3),
        (["scenes=tau", "finetune.epochs=5"], [5] * 3, [None] * 3),
        (["scenes=tau", "finetune.steps=7"], [None] * 3, [7] * 3),
        (
            ["scenes=tau", "rounds=[{pruning_ratio: 0.2}, {pruning_ratio: 0.2, epochs: 60}]"],
            [30, 60],
            [None] * 2,
        ),
        (["scenes=toy"], [None] * 3, [15] * 3),
    ],
)
def test_a_round_on_real_data_trains_30_epochs(
    tmp_path: Path, overrides: list[str], epochs: list[Any], steps: list[Any]
) -> None:
    (tmp_path / "teacher.pth").touch()
    given = [*overrides, f"teacher={tmp_path / 'teacher.pth'}"]
    request = RoundsRequest.from_config(load_config(find_config(Path(SCHEDULE)), given))
    rounds = [request.rounds[n] for n in range(len(request.rounds))]
    lengths = [request.finetune_of(own) for own in rounds]
    assert [own.epochs for own in lengths] == epochs
    assert [own.steps for own in lengths] == steps


@dataclass(frozen=True)
class Chain:
    """The experiments that all stages of the family recorded, and their W&B runs."""

    folder: Path
    runs: list[FakeRun]

    def infos(self, stage: str) -> list[dict[str, Any]]:
        files = (self.folder / "experiments").glob("*/info.json")
        infos = (json.loads(path.read_text()) for path in files)
        return sorted((i for i in infos if i["stage"] == stage), key=lambda i: i["exp_id"])

    def metrics(self, info: dict[str, Any]) -> dict[str, float]:
        path = self.folder / "experiments" / info["exp_id"] / "metrics.json"
        return json.loads(path.read_text())["embedded"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("scenes")
    weights = folder / "w"
    own = [*SHORT, f"output.dir={weights}"]
    once = ["--config", SCHEDULE, *own, f"teacher={weights / 'cp_mobile.pth'}"]
    with pytest.MonkeyPatch.context() as patch:
        runs = install_wandb(folder, patch)
        for command in (
            ["train", "--config", "cp_mobile.yml", NETWORK, *own],
            *(
                [stage, *once, "rounds=null", "pruning_ratio=0.5", "output.name=once"]
                for stage in ("prune", "finetune", "rebuild")
            ),
            ["prune", *once, "rounds=[{pruning_ratio: 0.3}]"],
        ):
            done = call_kdp(*command)
            assert done.code == 0, done.stderr
        yield Chain(weights, runs)


@pytest.mark.parametrize(
    ("stage", "rounds"),
    [("train", [None]), ("finetune", [None]), ("rebuild", [None]), ("prune", [None, 1])],
)
def test_every_stage_is_recorded_with_what_it_costs(
    chain: Chain, stage: str, rounds: list[int | None]
) -> None:
    infos = chain.infos(stage)
    assert [info["pruning_step"] for info in infos] == rounds
    dense = chain.infos("train")[0]["params"]
    for info in infos:
        assert info["bytes"]["int8"] == info["params"]
        assert info["macs"]["count"] > 0
        assert info["sparsity"] == pytest.approx(1 - info["params"] / dense)
        assert (info["sparsity"] > 0) == (stage != "train")
        metrics = chain.metrics(info)
        assert {"class bus", "device a", "device s6", "device group unseen"} <= metrics.keys()


def test_every_training_is_tracked_under_the_name_of_its_experiment(chain: Chain) -> None:
    rounds = chain.infos("prune")[1:]
    recorded = [*chain.infos("train"), *chain.infos("finetune"), *rounds]
    assert [run.started["name"] for run in chain.runs] == [info["exp_id"] for info in recorded]
    for run, info in zip(chain.runs, recorded, strict=True):
        shown = run.summary
        assert shown["round"] == (info["pruning_step"] or 0)
        assert shown["macs"] == info["macs"]["count"]
        assert (shown["parameters"], shown["sparsity"]) == (info["params"], info["sparsity"])
        assert {
            "embedded/class bus",
            "embedded/device a",
            "embedded/macro_accuracy",
        } <= shown.keys()
        assert run.started["config"]["seed"] == 0
        assert run.started["config"]["data"]["audio"]["mix_style"] == 0.4


def test_nothing_is_written_outside_the_folder_of_the_outputs(chain: Chain) -> None:
    allowed = {"cp_mobile", "once", "rep_mobile_progressive", "experiments", "logs"}
    names = {path.stem.partition("_round")[0] for path in chain.folder.iterdir()}
    assert {name for name in names if not name.startswith(tuple(allowed))} == set()
    assert {run.started["dir"] for run in chain.runs} <= {
        str(path) for path in (chain.folder / "logs").iterdir()
    }
