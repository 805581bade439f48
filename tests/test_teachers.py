"""Learning from one teacher or several: ensembles, alignment, written targets, `kdp train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdp.artifacts import Artifact, load, make_record, save
from kdp.config import Config, DistillConfig
from kdp.distillation.alignment import Alignment
from kdp.distillation.objective import Distiller
from kdp.distillation.teacher import Ensemble
from kdp.errors import KdpError
from kdp.models import build
from kdp.stages.teach import teach
from kdp.stages.train import train
from tests.conftest import TINY
from tests.runs import SHORT, complaints, config, config_file, run_kdp

NARROW = {**TINY, "dim": 6, "patch_sizes": [8], "num_tokens": [4], "group_sizes": [16]}
BATCH = {"lr": torch.rand(2, 3, 12, 12), "hr": torch.rand(2, 3, 24, 24)}
LOSSES = {"output": {}, "feature": {}, "fakd": {"options": {"sample": 16}}}


def teachers(folder: Path, count: int = 1) -> list[str]:
    """Files of tiny networks that differ."""
    paths = []
    for seed in range(count):
        torch.manual_seed(seed)
        path = folder / f"teacher_{seed}.pth"
        model, arch = build("catanet", **TINY), {"name": "catanet", "args": TINY}
        save(path, Artifact(model.state_dict(), arch, make_record("train", {"seed": seed})))
        paths.append(str(path))
    return paths


def student(folder: Path, name: str = "student", **distill: Any) -> Config:
    """A configuration that trains a narrow network by distillation."""
    weights = teachers(folder)[0]
    sections = {
        "teacher": {"weights": weights},
        "losses": LOSSES,
        "taps": {"mid_convs.0": "mid_convs.1"},
        **distill,
    }
    output = {"name": name, "dir": str(folder / "w"), "runs": str(folder / "runs")}
    model = {"name": "catanet", "args": NARROW}
    return config(folder, teacher=None, model=model, output=output, distill=sections)


def objective(ensemble: Ensemble, losses: dict[str, Any]) -> Distiller:
    torch.manual_seed(5)
    return Distiller(
        DistillConfig.model_validate({"task_weight": 0, "losses": losses}),
        build("catanet", **TINY).eval(),
        ensemble,
        taps={"mid_convs.0": "mid_convs.1"},
        inputs=lambda batch: batch["lr"],
        task_loss=lambda output, batch: (output - batch["hr"]).abs().mean(),
        steps=10,
        seed=0,
        probe=BATCH,
    )


def ensemble(count: int, shares: list[float] | None = None) -> Ensemble:
    torch.manual_seed(1)
    models = [build("catanet", **TINY) for _ in range(count)]
    return Ensemble(models, ["mid_convs.1"], lambda batch: batch["lr"], shares)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_output_of_several_teachers_is_their_mean() -> None:
    both = ensemble(2)
    single = [teacher(BATCH["lr"])[0] for teacher in both.teachers]
    torch.testing.assert_close(both(BATCH).output, (single[0] + single[1]) / 2)


def test_shares_weight_the_teachers() -> None:
    both = ensemble(2, shares=[3, 1])
    single = [teacher(BATCH["lr"])[0] for teacher in both.teachers]
    torch.testing.assert_close(both(BATCH).output, 0.75 * single[0] + 0.25 * single[1])


def test_features_are_compared_with_each_teacher_by_its_share() -> None:
    def loss(source: Ensemble) -> float:
        distiller = objective(source, {"feature": {}})
        torch.manual_seed(5)
        network = build("catanet", **TINY).eval()
        distiller.taps.modules = {"mid_convs.0": network.get_submodule("mid_convs.0")}
        return float(distiller(network, BATCH, 0)[0].detach())

    both = ensemble(2, shares=[3, 1])
    alone = [
        Ensemble([teacher.model], ["mid_convs.1"], lambda batch: batch["lr"])
        for teacher in both.teachers
    ]
    expected = 0.75 * loss(alone[0]) + 0.25 * loss(alone[1])
    assert loss(both) == pytest.approx(expected, rel=1e-5)


def test_alignment_brings_both_features_to_one_width_and_scale() -> None:
    mine, theirs = torch.randn(4, 3, 5, 6), 100 + 7 * torch.randn(4, 8, 5, 6)
    aligned, wanted = Alignment(3, 8)(mine, theirs)
    for feature in (aligned, wanted):
        assert feature.shape == theirs.shape
        assert feature.mean((0, 2, 3)).abs().max() < 1e-3
        torch.testing.assert_close(feature.std((0, 2, 3)), torch.ones(8), atol=0.02, rtol=0)


def test_alignment_learns_to_undo_a_change_of_basis() -> None:
    torch.manual_seed(0)
    mine = torch.randn(4, 6, 5, 6)
    theirs = torch.einsum("oc,bchw->bohw", torch.randn(8, 6), mine)
    alignment = Alignment(6, 8)
    optimizer = torch.optim.Adam(alignment.parameters(), lr=0.05)
    for _ in range(300):
        aligned, wanted = alignment(mine, theirs)
        loss = (aligned - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1e-3


def test_a_student_of_another_width_learns_and_its_alignment_is_dropped(tmp_path: Path) -> None:
    settings = student(tmp_path)
    train(settings)
    artifact = load(tmp_path / "w/student.pth")
    assert artifact.params.keys() == build("catanet", **NARROW).state_dict().keys()
    state = load(tmp_path / "runs/student_train/checkpoint.pth").extra["training"]
    projection = state["extra_modules"]["0.aligned.0.project.weight"]
    torch.manual_seed(settings.seed)
    assert projection.shape == (8, 6, 1)
    assert state["optimizer"]["state"], "the optimizer knows what it learns"
    parts = rows(tmp_path / "runs/student_train/curves.jsonl")[0]
    assert {"task", "output", "feature", "fakd"} <= parts.keys()
    assert artifact.record["parents"][0]["path"].endswith("teacher_0.pth")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_written_targets_give_the_same_student(tmp_path: Path) -> None:
    live = student(tmp_path, "live")
    train(live)
    written = {"teacher": {"weights": teachers(tmp_path)[0], "written": True}}
    reading = student(tmp_path, "reading", **written)
    found = teach(reading)
    assert found.samples == SHORT["steps"] * SHORT["batch_size"]
    train(reading)
    a, b = (load(tmp_path / f"w/{name}.pth").params for name in ("live", "reading"))
    assert same(a, b)


def test_teaching_again_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdp.stages.teach.FILE_BYTES", 1)  # a file for every batch
    settings = student(tmp_path)
    folder = teach(settings).folder
    files = sorted(folder.glob("*.pth"))
    assert len(files) == SHORT["steps"]
    files[2].unlink()
    before = {path: path.stat().st_mtime_ns for path in files if path.exists()}
    teach(settings)
    assert files[2].exists()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({}, "run `kdp teach` first"), ({"taps": {"mid_convs.0": "mid_convs.0"}}, "other teachers")],
)
def test_targets_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if changes:
        teach(student(tmp_path))
    written = {"teacher": {"weights": teachers(tmp_path)[0], "written": True}}
    with pytest.raises(KdpError, match=message):
        train(student(tmp_path, **{**written, **changes}))


def test_too_few_targets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdp.stages.teach.FILE_BYTES", 1)
    written = {"teacher": {"weights": teachers(tmp_path)[0], "written": True}}
    settings = student(tmp_path, **written)
    teach(settings)
    assert settings.train is not None
    longer = settings.train.model_copy(update={"steps": SHORT["steps"] + 1})
    with pytest.raises(KdpError, match="too few targets"):
        train(settings.model_copy(update={"train": longer}))


def test_a_training_starts_from_given_weights(tmp_path: Path) -> None:
    path = teachers(tmp_path)[0]
    model = {"name": "catanet", "args": TINY, "weights": path}
    train(config(tmp_path, model=model, distill=None, train={**SHORT, "steps": 1, "lr": 1e-12}))
    first, found = load(Path(path)).params, load(tmp_path / "weights/tiny.pth").params
    names = [name for name in first if "means" not in name and "initted" not in name]
    assert all(torch.allclose(first[name], found[name], atol=1e-6) for name in names)


def test_several_teachers_from_the_command_line(tmp_path: Path) -> None:
    paths = teachers(tmp_path, 2)
    file = config_file(tmp_path, distill={"losses": {"output": {}}}, teacher=None)
    override = f"++distill.teacher={{weights: [{', '.join(paths)}], shares: [2, 1]}}"
    done = run_kdp("train", "--config", str(file), "train.steps=2", override)
    assert done.returncode == 0, done.stderr
    record = load(tmp_path / "weights/tiny.pth").record
    assert [parent["path"] for parent in record["parents"]] == paths


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": {"weights": ["a.pth", "b.pth"], "shares": [1]}}, "1 shares for 2 teachers"),
        ({"teacher": {"weights": "nowhere.pth"}}, "nowhere.pth does not exist"),
        ({"taps": {"mid_convs.0": "mid_conv.1"}}, "did you mean 'mid_convs.1'"),
        ({"losses": {"fakd": {"schedule": "piecewis"}}}, "piecewise"),
    ],
)
def test_wrong_teachers_are_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    plain = student(tmp_path).model_dump(mode="json")["distill"]
    file = config_file(tmp_path, teacher=None, distill={**plain, **changes})
    done = run_kdp("train", "--config", str(file))
    assert done.returncode == 2
    (line,) = complaints(done.stderr)
    assert message in line


def test_validate_looks_at_teachers_and_gates(tmp_path: Path) -> None:
    plain = student(tmp_path).model_dump(mode="json")
    sections = {"dynamic": {"end_step": 4}, "mac_constraint": 0.9}
    changes = {key: plain[key] for key in ("model", "distill", "teacher")}
    file = config_file(tmp_path, **changes, **sections, finetune=None)
    good = run_kdp("validate", "--config", str(file))
    assert good.returncode == 0, good.stdout
    assert "units with gates" in good.stdout
    Path(plain["distill"]["teacher"]["weights"]).unlink()
    bad = run_kdp("validate", "--config", str(file))
    assert bad.returncode == 2
    assert "FAIL train" in bad.stdout
    assert "teacher_0.pth does not exist" in bad.stdout
