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
from kdp.config.compose import load_config
from kdp.distillation.alignment import Alignment
from kdp.distillation.objective import Distiller
from kdp.distillation.teacher import TeacherEnsemble
from kdp.errors import KdpError
from kdp.measure.complexity import count_macs_of
from kdp.models import build
from kdp.models.loading import load_network
from kdp.stages.train import cache_targets as teach_module
from kdp.stages.train.cache_targets import teach
from kdp.stages.train.objective import build_objective, teacher_of
from kdp.stages.train.train import train
from kdp.tasks import task_for
from kdp.types import Arch
from tests.conftest import ROOT, TINY
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
        paths.append(str(path))
        if path.exists():
            continue
        model, arch = build("catanet", **TINY), Arch("catanet", TINY)
        model(torch.rand(2, 3, 12, 12))  # without token centres it would depend on its batch
        save(path, Artifact(model.state_dict(), arch, make_record("train", {"seed": seed})))
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


def objective(ensemble: TeacherEnsemble, losses: dict[str, Any]) -> Distiller:
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
        confidence_map=lambda output: output.flatten(1),
    )


def ensemble(count: int, shares: list[float] | None = None) -> TeacherEnsemble:
    torch.manual_seed(1)
    models = [build("catanet", **TINY) for _ in range(count)]
    return TeacherEnsemble(models, ["mid_convs.1"], lambda batch: batch["lr"], shares)


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
    def loss(source: TeacherEnsemble) -> float:
        distiller = objective(source, {"feature": {}})
        torch.manual_seed(5)
        network = build("catanet", **TINY).eval()
        distiller.taps.modules = {"mid_convs.0": network.get_submodule("mid_convs.0")}
        return float(distiller(network, BATCH, 0)[0].detach())

    both = ensemble(2, shares=[3, 1])
    alone = [
        TeacherEnsemble([teacher.model], ["mid_convs.1"], lambda batch: batch["lr"])
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
    start = Alignment(6, 8).project.weight
    assert not torch.allclose(projection, start, atol=1e-4), "it learns"
    assert torch.allclose(projection, start, atol=0.1), "from where it started"
    parts = rows(tmp_path / "runs/student_train/curves.jsonl")[0]
    assert {"task", "output", "feature", "fakd"} <= parts.keys()
    assert artifact.record.parents[0].path.endswith("teacher_0.pth")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def taught(folder: Path, **changes: Any) -> Config:
    """A student that reads `folder/targets`."""
    return student(folder, target_cache=str(folder / "targets"), **changes)


def longer(settings: Config, **changes: Any) -> Config:
    """The same with other numbers in `train`."""
    assert settings.train is not None
    return settings.model_copy(update={"train": settings.train.model_copy(update=changes)})


def features_by_number(settings: Config, count: int) -> list[Tensor]:
    """The targets that the samples of a training carry."""
    task = task_for(Arch("catanet", NARROW), settings)
    torch.manual_seed(0)
    data = build_objective(task, build("catanet", **NARROW), settings, 10).data(count)
    return [data[number]["teacher.0.mid_convs.1"] for number in range(count)]


def test_written_targets_give_the_same_student(tmp_path: Path) -> None:
    train(student(tmp_path, name="live"))
    reading = taught(tmp_path, name="reading")
    assert teach(reading).samples == SHORT["steps"] * SHORT["batch_size"]
    train(reading)
    a, b = (load(tmp_path / f"w/{name}.pth").params for name in ("live", "reading"))
    assert same(a, b)


def test_one_teaching_serves_students_of_other_names_and_losses(tmp_path: Path) -> None:
    teach(taught(tmp_path))
    train(taught(tmp_path, name="other", losses={"fakd": {"options": {"sample": 4}}}))
    assert (tmp_path / "w/other.pth").exists()


def test_teaching_again_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdp.stages.train.cache_targets.FILE_BYTES", 1)  # a file for every sample
    settings = taught(tmp_path)
    folder = teach(settings).folder
    files = sorted(folder.glob("0*.pth"))
    assert len(files) == SHORT["steps"] * SHORT["batch_size"]
    files[2].unlink()
    before = {path: path.stat().st_mtime_ns for path in files if path.exists()}
    teach(settings)
    assert files[2].exists()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.parametrize(
    "changes", [{"steps": 9}, {"batch_size": 3}, {"steps": 2, "batch_size": 7}]
)
def test_a_training_that_grows_is_taught_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(
        "kdp.stages.train.cache_targets.FILE_BYTES", 5 * 20_000
    )  # files of a few samples
    settings = taught(tmp_path)
    teach(settings)
    grown = longer(settings, **changes)
    count = grown.train.steps * grown.train.batch_size if grown.train else 0
    with pytest.raises(KdpError, match=f"{count} are needed"):
        train(grown)
    teach(grown)
    found = features_by_number(grown, count)
    files = sorted((tmp_path / "targets").glob("0*.pth"))
    assert len(files) > 1
    expected = live_features(grown, count)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def live_features(settings: Config, count: int) -> list[Tensor]:
    """What the teacher gives for each sample alone."""
    task = task_for(Arch("catanet", NARROW), settings)
    network, _, _ = load_network(teacher_of(settings).paths[0])
    source = TeacherEnsemble([network], ["mid_convs.1"], task.inputs)
    data = task.training_data(count)
    batches = ({k: v[None] for k, v in data[n].items()} for n in range(count))
    return [source(batch).features[0]["mid_convs.1"][0] for batch in batches]


def test_an_interrupted_teaching_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdp.stages.train.cache_targets.FILE_BYTES", 1)
    teach(taught(tmp_path))
    other = taught(tmp_path, teacher={"weights": teachers(tmp_path, 2)[1]})
    writes = iter(range(3))

    def fails(*arguments: Any) -> None:
        if next(writes, None) is None:
            raise KdpError("the disk is full")
        plain(*arguments)

    plain = teach_module.write_targets
    monkeypatch.setattr(teach_module, "write_targets", fails)
    with pytest.raises(KdpError, match="disk is full"):
        teach(other)
    for settings in (other, taught(tmp_path)):
        with pytest.raises(KdpError, match="run `kdp cache-targets` first"):
            train(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "run `kdp cache-targets` first"),
        ({"taps": {"mid_convs.0": "mid_convs.0"}}, "other taps"),
        ({"seed": 4}, "other pictures, seed"),
    ],
)
def test_targets_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if changes:
        teach(taught(tmp_path))
    seed = changes.pop("seed", 0)
    settings = taught(tmp_path, **changes).model_copy(update={"seed": seed})
    with pytest.raises(KdpError, match=message):
        train(settings)


def test_what_is_missing_to_be_taught_is_one_line(tmp_path: Path) -> None:
    chosen = taught(tmp_path)
    teach(chosen)
    (tmp_path / "targets" / "000000.pth").unlink()
    with pytest.raises(
        KdpError, match=r"000000\.pth does not exist; run `kdp cache-targets` again"
    ):
        train(chosen)
    Path(teachers(tmp_path)[0]).unlink()
    with pytest.raises(KdpError, match=r"cannot read .*teacher_0\.pth"):
        teach(chosen)


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
    assert [parent.path for parent in record.parents] == paths


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


def test_an_aligned_student_learns_in_mixed_precision(tmp_path: Path) -> None:
    plain = student(tmp_path).model_dump(mode="json")
    changes = {key: plain[key] for key in ("model", "distill", "teacher")}
    file = config_file(tmp_path, **changes)
    done = run_kdp("train", "-c", str(file), "train.mixed_precision=bf16", "train.steps=2")
    assert done.returncode == 0, done.stderr


def test_teachers_whose_outputs_differ_are_refused() -> None:
    torch.manual_seed(0)
    models = [build("catanet", **{**TINY, "upscale": scale}) for scale in (2, 3)]
    source = TeacherEnsemble(models, [], lambda batch: batch["lr"])
    with pytest.raises(KdpError, match="cannot average"):
        source(BATCH)


def test_the_shipped_student_is_the_size_it_says() -> None:
    config = load_config(ROOT / "configs" / "train_student_distill.yml")
    assert config.model is not None
    network = build(config.model.name, **config.model.args)
    assert sum(p.numel() for p in network.parameters()) == 227_487
    x = torch.rand(1, 3, 64, 64)
    large = count_macs_of(Arch("catanet", {"upscale": 2}), x)
    assert count_macs_of(config.model.arch, x) / large == pytest.approx(0.358, abs=5e-4)
