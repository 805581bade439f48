"""Acoustic scenes through the stages, with small networks on generated sounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from kdp.artifacts import Artifact, make_record, save
from kdp.cli import app
from kdp.config import Config
from kdp.config.measure import LimitsConfig
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.models.mobile import SCENES
from kdp.stages.costs import costs_of
from kdp.stages.prune.progressive import prune_in_rounds
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train.finetune import finetune
from kdp.stages.train.limits import check_limits
from kdp.stages.train.train import train
from kdp.tasks.scenes.task import AcousticScenes, by_device_group
from kdp.types import Arch
from tests.runs import SHORT

SMALL = {
    "stem": 4,
    "channels": [8, 8],
    "hidden": [10, 12],
    "strides": [[2, 2], [2, 2]],
}
STEPS = {**SHORT, "steps": 2, "batch_size": 8, "validate_every": 2}


def settings(folder: Path, **changes: Any) -> Config:
    """A small RepMobile on generated scenes."""
    plain = {
        "device": "cpu",
        "output": {"name": "tiny", "dir": str(folder / "w"), "runs": str(folder / "runs")},
        "model": {"name": "rep_mobile", "args": SMALL},
        "evaluation": {"toy": {}},
        "prune": {"criterion": "magnitude", "calibration": {"patches": 4}},
        "train": STEPS,
        "finetune": STEPS,
    }
    return Config.model_validate({**plain, **changes})


def kdp(*arguments: Any) -> str:
    """Run a command and return its output."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.exception
    return done.output


def task_of(config: Config) -> AcousticScenes:
    return AcousticScenes(Arch("rep_mobile", SMALL), config)


def test_accuracy_is_reported_by_class_device_and_clip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    metrics = task_of(settings(tmp_path)).evaluate(build("rep_mobile", **SMALL))["toy"]
    classes = [value for name, value in metrics.items() if name.startswith("class ")]
    devices = [name for name in metrics if name.startswith("device ")]
    assert len(classes) == 10
    assert metrics["macro_accuracy"] == pytest.approx(sum(classes) / 10)
    assert {"device a", "device s1", "device s6"} <= set(devices)
    assert {f"device group {group}" for group in ("real", "seen", "unseen")} <= set(devices)
    assert {"accuracy", "clip_macro_accuracy"} <= metrics.keys()


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (["a", "b", "c", "s1", "s6"], {"real": 2 / 3, "seen": 0.0, "unseen": 1.0}),
        (["a", "s4", "phone", "s4", "s5"], {"real": 1.0, "unseen": 2 / 3}),
        (["phone"] * 5, {}),
        (["a", "b", "c", "a", "a"], {}),
    ],
)
def test_devices_are_grouped_as_the_challenge_does(
    devices: list[str], expected: dict[str, float]
) -> None:
    correct = torch.tensor([True, True, False, False, True])
    groups = by_device_group(devices, correct)
    assert groups == pytest.approx({f"device group {k}": v for k, v in expected.items()})


def test_generated_sounds_have_their_own_classes(tmp_path: Path) -> None:
    config = settings(tmp_path)
    task = AcousticScenes(Arch("rep_mobile", {**SMALL, "classes": ["a", "b"]}), config)
    with pytest.raises(KdpError, match="the network has a, b; use samples of kind 'scenes'"):
        task.check_data()


def test_augmentation_is_random_and_follows_the_generator(tmp_path: Path) -> None:
    task = task_of(settings(tmp_path, data={"audio": {"mix_style": 1.0}}))
    data = task.training_data(4)
    batch = {key: torch.stack([data[i][key] for i in range(4)]) for key in ("wave", "label")}
    plain = task.prepare(batch, augment=False)["mel"]
    assert plain.shape == (4, 1, 256, 65)
    torch.manual_seed(3)
    first = task.prepare(batch)["mel"]
    torch.manual_seed(3)
    assert torch.equal(task.prepare(batch)["mel"], first)
    assert not torch.equal(first, plain)
    assert torch.equal(task.prepare(batch, augment=False)["mel"], plain)


def test_fusing_also_works_on_a_pruned_network(tmp_path: Path) -> None:
    config = settings(tmp_path)
    teacher = train(config)["best"]
    pruned = settings(tmp_path, teacher=str(teacher), pruning_ratio=0.5)
    prune(pruned)
    finetune(pruned)
    done = rebuild(pruned)
    assert done.difference < 1e-5
    small, arch, _ = load_network(done.path)
    assert arch.args["hidden"] == [5, 6]
    assert arch.args["fused"]
    assert not [m for m in small.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_rounds_end_in_a_fused_network(tmp_path: Path) -> None:
    teacher = train(settings(tmp_path))["best"]
    rounds = [{"pruning_ratio": 0.3, "steps": 1}] * 2
    config = settings(tmp_path, teacher=str(teacher), model=None, rounds=rounds)
    done = prune_in_rounds(config)
    _, arch, _ = load_network(done.path)
    assert arch.args["hidden"] == [4, 5]
    assert arch.args["fused"]
    assert "class bus" in done.rows[1]["metrics"]["toy"]


def test_every_precision_is_evaluated_with_its_size(tmp_path: Path) -> None:
    train(settings(tmp_path))
    network = rebuild(settings(tmp_path)).path
    for precision in ("fp16", "int8"):
        kdp("export", network, "--to", "onnx", "--precision", precision)
    files = [network, *(network.with_name(f"{network.stem}_{p}.onnx") for p in ("fp16", "int8"))]
    once = ("--set", "measure.latency_runs=1", "--set", "measure.warmup_runs=0")
    table = tmp_path / "table.json"
    printed = kdp("compare", *files, "--half", "--device", "cpu", *once, "--json", table)
    assert f"2: {network} (parameters rounded to fp16, computed in fp16)" in printed
    assert f"4: {files[2]} (int8)" in printed
    rows = {row["name"]: row["values"] for row in json.loads(table.read_text())["rows"]}
    count = rows["parameters"][0]
    single, half, half_onnx, eight_bit = rows["weights"]
    assert (single, half) == (4 * count, 2 * count)
    assert half <= half_onnx < 1.2 * half
    assert eight_bit < 4 * count
    assert rows["file"][2:] == [file.stat().st_size for file in files[1:]]
    assert all(0 < share <= 1 for share in rows["embedded macro accuracy"])
    mean = sum(rows[f"embedded class {scene}"][3] for scene in SCENES) / len(SCENES)
    assert rows["embedded macro accuracy"][3] == pytest.approx(mean)


def test_a_teacher_with_other_classes_is_rejected(tmp_path: Path) -> None:
    args = {**SMALL, "classes": SCENES[::-1]}
    params = build("cp_mobile", **args).state_dict()
    arch = Arch("cp_mobile", args)
    save(tmp_path / "other.pth", Artifact(params, arch, make_record("train", {})))
    distill = {"teacher": {"weights": str(tmp_path / "other.pth")}, "losses": {"logits": {}}}
    with pytest.raises(KdpError, match=r"other\.pth has the classes tram, .*the student has airp"):
        train(settings(tmp_path, distill=distill))


def test_two_teachers_are_averaged_by_their_logits(tmp_path: Path) -> None:
    paths = [
        str(
            train(settings(tmp_path, seed=s, output={"name": f"t{s}", "dir": str(tmp_path)}))[
                "best"
            ]
        )
        for s in (0, 1)
    ]
    distill = {"teacher": {"weights": paths}, "losses": {"logits": {"weight": 0.5}}}
    written = train(settings(tmp_path, distill=distill))
    record = load_network(written["best"])[2].record
    assert [parent.path for parent in record.parents] == paths


def test_one_more_channel_than_the_baseline_exceeds_the_limits(tmp_path: Path) -> None:
    allowed = LimitsConfig(bytes=128_000, bits=16, macs=29_500_000)
    task = task_of(settings(tmp_path))
    check_limits(allowed, costs_of(Arch("cp_mobile", {}), task), "cp_mobile")
    wide = Arch("cp_mobile", {"hidden": [66, 64, 64, 64, 120, 120]})
    with pytest.raises(KdpError, match=r"limits\.macs: cp_mobile takes 29,"):
        check_limits(allowed, costs_of(wide, task), "cp_mobile")


def test_a_network_over_a_limit_is_not_trained(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match=r"limits\.bytes"):
        train(settings(tmp_path, limits={"bytes": 100}))
    assert not (tmp_path / "w").exists()
