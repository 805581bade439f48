"""Progressive pruning: `kdp prune` with `rounds`."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from kdp.artifacts import Artifact, load, make_record, save
from kdp.config import Config
from kdp.errors import Interrupted, KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.stages.prune import round as round_module
from kdp.stages.prune.progressive import prune_in_rounds
from kdp.stages.validate import validate
from kdp.training import loop
from kdp.types import Arch
from tests import runs
from tests.runs import SHORT, run_kdp
from tests.wandb_fake import install_wandb

FACES = {"channels": [8, 10, 12], "dropout": 0.0, "image_size": 32}
HEADS = ("tab_heads", "lrsa_heads")
ROUNDS = [{"pruning_ratio": 0.3, "steps": 4}, {"pruning_ratio": 0.3, "steps": 3}]


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Two rounds on toy faces, with a briefly trained teacher."""
    torch.manual_seed(0)
    model = build("mask_classifier", **FACES)
    for _ in range(3):
        model(torch.rand(4, 3, 32, 32))
    arch = Arch("mask_classifier", FACES)
    if not (folder / "base.pth").exists():
        save(folder / "base.pth", Artifact(model.state_dict(), arch, make_record("train", {})))
    plain = {
        "device": "cpu",
        "output": {"name": "tiny", "dir": str(folder / "w"), "runs": str(folder / "runs")},
        "teacher": str(folder / "base.pth"),
        "evaluation": {"toy": {}},
        "prune": {"criterion": "magnitude", "calibration": {"patches": 8}},
        "distill": {"losses": {"logits": {}}},
        "finetune": {**SHORT, "batch_size": 8, "checkpoint_every": 1},
        "rounds": ROUNDS,
    }
    return {**plain, **changes}


def config(folder: Path, **changes: Any) -> Config:
    return Config.model_validate(settings(folder, **changes))


def test_every_round_is_measured_and_the_last_is_kept(tmp_path: Path) -> None:
    done = prune_in_rounds(config(tmp_path))
    assert [row["round"] for row in done.rows] == [0, 1, 2]
    small, arch, _ = load_network(done.path)
    assert arch.args["channels"] == [3, 4, 5]  # floor of 0.7 of 5, 7 and 8
    counts = [row["parameters"] for row in done.rows]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == sum(p.numel() for p in small.parameters())
    assert all({"macs", "bytes", "sparsity", "metrics"} <= row.keys() for row in done.rows)
    gone = [row["sparsity"] for row in done.rows]
    assert 0 == gone[0] < gone[1] < gone[2] < 1
    assert all("before" in row for row in done.rows[1:])
    assert json.loads(done.table.read_text()) == done.rows


def test_validate_checks_the_network_to_prune(tmp_path: Path) -> None:
    inherited = {"model": {"name": "mask_classifier", "args": FACES}, "train": SHORT}
    checks = list(validate(config(tmp_path, **inherited)))
    assert [check.name for check in checks if check.passed][-2:] == ["prune", "finetune"]
    gone = validate(config(tmp_path, **inherited, teacher=str(tmp_path / "gone.pth")))
    assert [check.name for check in gone if not check.passed] == ["network"]


def test_each_round_learns_from_the_first_teacher(tmp_path: Path) -> None:
    prune_in_rounds(config(tmp_path))
    record = load(tmp_path / "w" / "tiny_round2_finetuned_logits.pth").record
    assert str(tmp_path / "base.pth") in [parent.path for parent in record.parents]


def test_a_killed_schedule_resumes_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    prune_in_rounds(config(whole))

    class Stop(Exception): ...

    update, calls = loop._TrainingRun._train_step, []

    def until_the_second_step_of_round_two(run: Any, batch: Any) -> None:
        if len(calls) == 6:
            raise Stop
        calls.append(1)
        update(run, batch)

    monkeypatch.setattr(loop._TrainingRun, "_train_step", until_the_second_step_of_round_two)
    with pytest.raises(Stop):
        prune_in_rounds(config(cut))
    with pytest.raises(Stop):  # and again, before there was another step
        prune_in_rounds(config(cut), resume=True)
    steps: list[int] = []
    monkeypatch.setattr(
        loop._TrainingRun,
        "_train_step",
        lambda run, batch: (steps.append(run.step), update(run, batch))[1],
    )
    monkeypatch.setattr(round_module, "prune", lambda *_, **__: pytest.fail("pruned again"))
    prune_in_rounds(config(cut), resume=True)
    assert steps == [2]
    params = [load(folder / "w" / "tiny_rebuilt.pth").params for folder in (whole, cut)]
    for name, tensor in params[0].items():
        assert torch.equal(params[1][name], tensor), name


def test_a_changed_ratio_restarts_its_round(tmp_path: Path) -> None:
    prune_in_rounds(config(tmp_path))
    first = (tmp_path / "w" / "tiny_round1_rebuilt.pth").read_bytes()
    changed = [ROUNDS[0], {"pruning_ratio": 0.5, "steps": 3}]
    done = prune_in_rounds(config(tmp_path, rounds=changed), resume=True, overwrite=True)
    assert (tmp_path / "w" / "tiny_round1_rebuilt.pth").read_bytes() == first
    assert load_network(done.path)[1].args["channels"] == [2, 3, 4]


def test_without_resume_every_round_is_repeated(tmp_path: Path) -> None:
    prune_in_rounds(config(tmp_path))
    first = (tmp_path / "w" / "tiny_round1_rebuilt.pth").stat().st_mtime_ns
    prune_in_rounds(config(tmp_path))
    assert (tmp_path / "w" / "tiny_round1_rebuilt.pth").stat().st_mtime_ns > first


def test_ctrl_c_prints_how_to_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = loop._TrainingRun._train_step

    def interrupted(run: Any, batch: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        update(run, batch)

    monkeypatch.setattr(loop._TrainingRun, "_train_step", interrupted)
    with pytest.raises(Interrupted, match="--resume"):
        prune_in_rounds(config(tmp_path))
    assert not (tmp_path / "w" / "tiny_rebuilt.pth").exists()


def test_the_command_prints_the_rounds(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(yaml.safe_dump(settings(tmp_path)))
    done = run_kdp("prune", "--config", str(tmp_path / "c.yml"))
    assert done.returncode == 0, done.stderr
    assert "progressive pruning" in done.stdout
    assert done.stdout.splitlines()[-2] == str(tmp_path / "w" / "tiny_rebuilt.pth")


def without_heads(folder: Path, **changes: Any) -> Config:
    """Two rounds on a network of another family, the first of which removes all heads."""
    search = {"criterion": "magnitude", "calibration": {"patches": 2, "patch_size": 10}}
    runs.prune(folder)  # for its teacher
    search["min_units"] = dict.fromkeys(HEADS, 0)
    return runs.config(
        folder,
        **{"rounds": [{"pruning_ratio": 0.6, "steps": 1}] * 2, "distill": None},
        **{"prune": {**search, **changes}, "measure": {"input_size": [16, 16]}},
        **{"finetune": {**SHORT, "validate_every": 1, "checkpoint_every": 1}},
        model=None,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"kinds": [*HEADS, "tab_neurons"]},
        {"kinds": [*HEADS, "tab_neurons"], "round_to": {"tab_heads": 2}},
        {},
    ],
    ids=["kinds", "round_to", "min_units"],
)
def test_a_round_goes_on_without_a_kind_that_is_gone(
    tmp_path: Path, changes: dict[str, Any], messages: list[str]
) -> None:
    done = prune_in_rounds(without_heads(tmp_path, **changes))
    arch = load(done.path).arch
    assert arch is not None
    assert [arch.args[kind] for kind in HEADS] == [[0, 0]] * 2
    counts = [row["parameters"] for row in done.rows]
    assert counts == sorted(set(counts), reverse=True)
    assert "earlier rounds have removed all lrsa_heads, tab_heads" in messages


def test_a_round_with_nothing_left_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        KdpError, match=r"the network has no tab_heads, lrsa_heads; .*fewer `rounds`"
    ):
        prune_in_rounds(without_heads(tmp_path, kinds=[*HEADS]))
    assert load(tmp_path / "weights/tiny_round1_rebuilt.pth").params


def test_a_mistyped_kind_is_refused_in_the_first_round(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match="no kind of group is called 'heads'"):
        prune_in_rounds(without_heads(tmp_path, kinds=["heads"]))


@pytest.mark.parametrize("missing", ["teacher", "finetune"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    with pytest.raises(KdpError, match=f"`{missing}`"):
        prune_in_rounds(config(tmp_path, **{missing: None}))


def test_every_round_is_kept_as_an_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = install_wandb(tmp_path, monkeypatch)
    finetune = {**settings(tmp_path)["finetune"], "trackers": ["wandb"]}
    experiments = {"folder": str(tmp_path / "e")}
    done = prune_in_rounds(config(tmp_path, experiments=experiments, finetune=finetune))
    with (tmp_path / "e" / "results.csv").open() as file:
        kept = list(csv.DictReader(file))
    assert [line["pruning_step"] for line in kept] == ["1", "2"]
    assert [line["sparsity"] for line in kept] == [str(row["sparsity"]) for row in done.rows[1:]]
    assert [line["bytes_int8"] for line in kept] == [
        str(row["parameters"]) for row in done.rows[1:]
    ]
    assert [run.started["name"] for run in runs] == [line["exp_id"] for line in kept]
    assert [run.summary["round"] for run in runs] == [1, 2]
    shown = [(run.summary["parameters"], run.summary["sparsity"]) for run in runs]
    assert shown == [(row["parameters"], row["sparsity"]) for row in done.rows[1:]]
