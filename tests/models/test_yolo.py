"""YOLO11: exact in its rewritten form, distilled, pruned, exported, and the same elsewhere."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import default_collate

from kdp.artifacts import Artifact, load, make_record, save
from kdp.config import Config
from kdp.data.images import read_rgb
from kdp.data.toy_shapes import CLASSES, toy_shapes
from kdp.distillation.losses import attention_map
from kdp.distillation.teacher import TeacherEnsemble
from kdp.errors import KdpError
from kdp.measure.complexity import count_macs_of
from kdp.models import build
from kdp.models.loading import load_network, load_runnable
from kdp.models.taps import Taps
from kdp.models.ultralytics import import_ultralytics as ultralytics
from kdp.models.ultralytics_names import arch_of_plan, from_ultralytics, to_ultralytics
from kdp.models.yolo11 import TAPS, decode
from kdp.pruning import dependency
from kdp.pruning.groups import full_masks
from kdp.pruning.importance.base import ScoringContext
from kdp.pruning.importance.weights import taylor
from kdp.pruning.masks import masks_applied
from kdp.pruning.rebuild import rebuild as cut
from kdp.pruning.rebuild import smaller_arch
from kdp.pruning.replay import Replay
from kdp.stages.export import export as export_stage
from kdp.stages.export.export import ExportRequest, export
from kdp.stages.prune.budget import macs_by_width
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train import job as job_stage
from kdp.stages.train import objective as distil
from kdp.stages.train.finetune import finetune
from kdp.stages.train.request import DistillRequest
from kdp.stages.train.train import train
from kdp.tasks import task_for
from kdp.tasks.detection.metrics import Detections, average_precision
from kdp.types import Arch
from tests.runs import ended, run_kdp, start_kdp, wait_until

SIZE = 64
ARCH = Arch("yolo11", {"scale": "n", "classes": list(CLASSES), "image_size": SIZE})
ATTENTION = {"losses": {"attention_transfer": {"weight": 0.75, "schedule": "piecewise"}}}
HEAD_READS = ["layers.16", "layers.19", "layers.22"]
STEPS = {
    "steps": 4,
    "batch_size": 2,
    "lr": 1e-3,
    "validate_every": 4,
    "checkpoint_every": 1,
    "log_every": 1,
}
SHORT = {**STEPS, "steps": 1, "validate_every": 1}


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "device": "cpu",
        "output": {"name": "tiny", "dir": str(folder), "runs": str(folder / "runs")},
        "model": ARCH.plain(),
        "teacher": str(folder / "teacher.pth"),
        "data": {"kind": "voc", "folder": str(folder / "voc")},
        "evaluation": {"toy": {"kind": "voc", "folder": str(folder / "voc"), "split": "train"}},
        "train": STEPS,
        "finetune": STEPS,
        "prune": {"criterion": "magnitude", "calibration": {"patches": 2}},
        "measure": {"latency_runs": 1, "warmup_runs": 0},
        **changes,
    }


def config(folder: Path, **changes: Any) -> Config:
    return Config.model_validate(settings(folder, **changes))


def config_file(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(settings(folder, **changes)))
    return path


def lively(scale: str = "n", **args: Any) -> nn.Module:
    """A network whose normalisations are not those of a new one."""
    torch.manual_seed(0)
    model = build("yolo11", **{**ARCH.args, "scale": scale, **args})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images with shapes in VOC's layout, and a teacher."""
    folder = tmp_path_factory.mktemp("yolo")
    write_voc(folder / "voc", 4)
    model = lively()
    save(folder / "teacher.pth", Artifact(model.state_dict(), ARCH, make_record("train", {})))
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of the template for one test to write into."""
    return shutil.copytree(template, tmp_path, dirs_exist_ok=True)


def write_voc(root: Path, count: int) -> None:
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / part).mkdir(parents=True)
    images = toy_shapes(validation=False)[:count]
    for number, one in enumerate(images):
        image = one.read()
        cv2.imwrite(str(root / f"JPEGImages/{number}.jpg"), image[:, :, ::-1])
        height, width = image.shape[:2]
        objects = "".join(
            f"<object><name>{CLASSES[label]}</name><bndbox><xmin>{x0 + 1:.0f}</xmin>"
            f"<ymin>{y0 + 1:.0f}</ymin><xmax>{x1:.0f}</xmax><ymax>{y1:.0f}</ymax></bndbox></object>"
            for label, (x0, y0, x1, y1) in zip(one.labels, one.boxes, strict=True)
        )
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        text = f"<annotation><filename>{number}.jpg</filename>{size}{objects}</annotation>"
        (root / f"Annotations/{number}.xml").write_text(text)
    (root / "ImageSets/Main/train.txt").write_text("\n".join(map(str, range(count))))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("scale", ["n", "s", "m"])
def test_two_half_convolutions_equal_one_whole_convolution(scale: str) -> None:
    model = lively(scale)
    plain = ultralytics("nn.tasks").DetectionModel(f"yolo11{scale}.yaml", nc=3, verbose=False)
    plain.load_state_dict(to_ultralytics(model.state_dict()))
    x = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        (boxes, raw), mine = plain.eval()(x), model(x)
    # Kernels for another number of channels may sum in another order.
    expected = torch.cat([raw["boxes"], raw["scores"]], 1)
    torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decode(mine, (96, 64)), boxes, rtol=1e-5, atol=1e-3)
    assert same(from_ultralytics(plain.state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize(
    ("scale", "parameters"), [("n", 2_624_080), ("s", 9_458_752), ("m", 20_114_688)]
)
def test_the_network_has_its_published_parameters(scale: str, parameters: int) -> None:
    with torch.device("meta"):
        model = build("yolo11", scale=scale, classes=[str(i) for i in range(80)])
    # Ultralytics counts the 16 numbers of the bins as parameters.
    assert sum(p.numel() for p in model.parameters()) + 16 == parameters


def test_the_loss_is_that_of_ultralytics(folder: Path) -> None:
    model, task = lively(), task_for(ARCH, config(folder))
    data = task.training_data(3)
    batch = default_collate([data[i] for i in range(3)])
    plain = ultralytics("nn.tasks").DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    plain.load_state_dict(to_ultralytics(model.state_dict()))
    plain.args = ultralytics("cfg").get_cfg()
    there = batch["boxes"][..., 0] >= 0
    rows = batch["boxes"][there]
    wanted = {"img": batch["image"], "cls": rows[:, :1], "bboxes": rows[:, 1:]}
    wanted["batch_idx"] = there.nonzero()[:, 0].float()
    loss, _ = plain.train().loss(wanted)
    mine = task.loss(model.train()(batch["image"]), batch)
    torch.testing.assert_close(mine * 3, loss.sum())


@pytest.mark.parametrize("align", [False, True])
def test_attention_moves_the_students_own_layers_and_nothing_of_the_teacher(
    folder: Path, align: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[TeacherEnsemble] = []

    def ensemble(*arguments: Any) -> TeacherEnsemble:
        made.append(TeacherEnsemble(*arguments))
        return made[0]

    monkeypatch.setattr(distil, "TeacherEnsemble", ensemble)
    losses = {"attention_transfer": {"weight": 1.0, "align": align}}
    settings = config(folder, distill={"losses": losses, "task_weight": 0})
    student, task = build("yolo11", **ARCH.args), task_for(ARCH, settings)
    request = DistillRequest.from_config(settings)
    objective = distil.build_objective(task, student, request, 4)
    teacher = made[0].teachers[0].model
    before = {name: t.clone() for name, t in teacher.state_dict().items()}
    batch = default_collate([objective.data(2)[i] for i in range(2)])
    loss, _ = objective.objective(student.train(), batch, 0)
    loss.backward()
    for tap in TAPS[:1] + TAPS[-1:]:
        gradients = [p.grad for p in student.get_submodule(tap).parameters() if p.grad is not None]
        assert sum(float(g.abs().sum()) for g in gradients) > 0, tap
    assert same(before, dict(teacher.state_dict()))
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())


def test_the_rival_distils_as_ultralytics_does(folder: Path) -> None:
    teacher, student, module = lively(), lively("s"), ultralytics("nn.distill_model")
    pair = []
    for model, scale in ((teacher, "n"), (student, "s")):
        plain = ultralytics("nn.tasks").DetectionModel(f"yolo11{scale}.yaml", nc=3, verbose=False)
        plain.load_state_dict(to_ultralytics(model.state_dict()))
        plain.args = ultralytics("cfg").get_cfg()
        plain.args.imgsz = SIZE
        pair.append(plain)
    rival = module.DistillationModel(*pair).train()
    settings = config(folder, distill={"losses": {"score_weighted": {}}, "taps": HEAD_READS})
    arch = ARCH.with_args(scale="s")
    request = DistillRequest.from_config(settings)
    objective = distil.build_objective(task_for(arch, settings), student, request, 4)
    (_, own) = objective.extra_modules
    own.load_state_dict(
        {
            mine: tensor.squeeze(-1) if tensor.ndim == 4 else tensor
            for mine, tensor in zip(
                own.state_dict(), rival.projector.state_dict().values(), strict=True
            )
        }
    )
    batch = default_collate([objective.data(2)[i] for i in range(2)])
    _, parts = objective.objective(student.train(), batch, 0)
    there = batch["boxes"][..., 0] >= 0
    rows = batch["boxes"][there]
    wanted = {"img": batch["image"], "cls": rows[:, :1], "bboxes": rows[:, 1:]}
    theirs = rival.loss({**wanted, "batch_idx": there.nonzero()[:, 0].float()})[1]["dis_loss"]
    torch.testing.assert_close(6.0 * parts["score_weighted"].detach(), theirs[0])


def test_attention_of_the_student_itself_comes_nearer(folder: Path) -> None:
    """The loss alone could fall by the alignment; this is measured without it."""
    losses = {"attention_transfer": {"weight": 10.0, "align": True}}
    steps = {**STEPS, "steps": 20, "validate_every": 20, "checkpoint_every": 20, "lr": 3e-3}
    settings = config(folder, distill={"losses": losses, "task_weight": 0}, train=steps)
    task = task_for(ARCH, settings)
    x = default_collate([task.training_data(4)[i] for i in range(4)])["image"]
    teacher = load_network(folder / "teacher.pth")[0]
    torch.manual_seed(settings.seed)
    fresh = build("yolo11", **ARCH.args)
    trained = load_network(train(settings)["last"])[0]
    assert distance(trained.train(), teacher, x) < 0.9 * distance(fresh.train(), teacher, x)


def test_a_plan_stands_for_a_teacher_in_a_dry_run(folder: Path) -> None:
    taught = {**ATTENTION, "teacher": {"weights": "yolo11s.yaml"}}
    done = run_kdp("train", "-c", str(config_file(folder, distill=taught, train=SHORT)))
    assert done.returncode == 0, done.stderr
    assert "yolo11s.yaml is a plan without weights" in done.stderr
    assert load(folder / "tiny.pth").record.parents == ()


def test_a_plan_of_another_network_is_refused() -> None:
    with pytest.raises(KdpError, match=r"yolo11n.yaml to yolo11x.yaml"):
        arch_of_plan("yolo12s.yaml", {})


def distance(student: nn.Module, teacher: nn.Module, x: Tensor) -> float:
    """Between the attention maps of two networks, with no alignment."""
    maps = []
    for model in (student, teacher):
        with torch.no_grad(), Taps(model, TAPS) as features:
            model(x)
        maps.append([attention_map(features[tap], 2.0) for tap in TAPS])
    return sum(float((a - b).norm()) for a, b in zip(*maps, strict=True))


def test_a_killed_training_goes_on_to_the_same_weights(folder: Path) -> None:
    losses = {"attention_transfer": {"schedule": "piecewise", "align": True}}
    steps = {**STEPS, "steps": 8, "validate_every": 8, "checkpoint_every": 2}
    changes = {"distill": {"losses": losses}, "train": steps}
    path = config_file(folder, **changes)
    process = start_kdp("train", "-c", str(path))
    wait_until(lambda: (folder / "runs/tiny_train/checkpoint.pth").exists(), process)
    process.kill()
    process.wait()
    step = load(folder / "runs/tiny_train/checkpoint.pth").extra["training"]["step"]
    assert step < 8
    parts = load(
        train(Config.model_validate(yaml.safe_load(path.read_text())), resume=True)["last"]
    )
    curve = list(csv.DictReader((folder / "runs/tiny_train/curves.csv").open()))
    whole = load(train(config(folder, **changes, output=elsewhere(folder)))["last"])
    assert same(whole.params, parts.params)
    assert len([row for row in curve if row["loss"]]) == 8


def elsewhere(folder: Path) -> dict[str, str]:
    return {"name": "whole", "dir": str(folder / "whole"), "runs": str(folder / "whole/runs")}


def as_rank(rank: int, port: int, folder: Path) -> None:
    """Make this process a rank of two, as torchrun does, and keep its weights after training."""
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": rank}
    local = {"LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in {**world, **local}.items()})
    fit = job_stage.fit

    def watched(job: Any, resume: bool) -> Any:
        result = fit(job, resume)
        torch.save(job.model.state_dict(), folder / f"rank{rank}.pth")
        return result

    vars(job_stage)["fit"] = watched


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def test_two_processes_have_equal_weights(folder: Path) -> None:
    path, port = config_file(folder, distill=ATTENTION), free_port()
    command = ("train", "-c", str(path))
    ranks = [start_kdp(*command, before=partial(as_rank, i, port, folder)) for i in (0, 1)]
    for process in ranks:
        done = ended(process)
        assert done.returncode == 0, done.stderr
    one, other = (torch.load(folder / f"rank{i}.pth", weights_only=True) for i in (0, 1))
    compared = [name for name in one if "running_" not in name and "num_batches" not in name]
    assert all(torch.equal(one[name], other[name]) for name in compared)


def test_masked_and_rebuilt_are_equal_and_the_widths_are_all_it_takes(folder: Path) -> None:
    model, task = lively(), task_for(ARCH, config(folder))
    groups = task.groups(model)
    random = torch.Generator().manual_seed(0)
    masks = {}
    for group in groups:
        masks[group.name] = torch.rand(group.units, generator=random) > 0.4
        masks[group.name][0] = True
    small, arch = cut(model, ARCH, groups, masks)
    x = torch.rand(1, 3, SIZE, SIZE)
    with masks_applied(model, groups, masks), torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)
    again = build(arch.name, **arch.args)
    assert {n: p.shape for n, p in again.state_dict().items()} == {
        n: p.shape for n, p in small.state_dict().items()
    }


def test_a_search_for_channels_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics' own form of the network has no end of dependencies."""
    monkeypatch.setattr(dependency, "SECONDS", 1.0)
    plain = ultralytics("nn.tasks").DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    before = [parameter.requires_grad for parameter in plain.parameters()]
    with pytest.raises(KdpError, match="search for coupled channels was stopped"):
        dependency.channel_groups(plain, torch.rand(1, 3, 64, 64), "widths")
    assert plain.training
    assert [parameter.requires_grad for parameter in plain.parameters()] == before


def test_operations_are_counted_without_building_the_network(folder: Path) -> None:
    model, task = lively(), task_for(ARCH, config(folder))
    groups = task.groups(model)
    random = torch.Generator().manual_seed(1)
    kept = {g.name: int(torch.randint(1, g.units + 1, (1,), generator=random)) for g in groups}
    count = macs_by_width(task, ARCH, groups)
    built = count_macs_of(smaller_arch(ARCH, groups, kept), task.example(task.input_size))
    assert count(kept) == built
    assert "weight_mac_counter" in count.__qualname__


def test_scores_belong_to_taps_in_the_order_of_the_head(folder: Path) -> None:
    settings = config(folder, distill={"losses": {"score_weighted": {}}, "taps": HEAD_READS[::-1]})
    student = lively()
    request = DistillRequest.from_config(settings)
    objective = distil.build_objective(task_for(ARCH, settings), student, request, 4)
    batch = default_collate([objective.data(2)[i] for i in range(2)])
    with pytest.raises(KdpError, match="the largest map first"):
        objective.objective(student, batch, 0)


def boxes(*corners: tuple[float, ...], label: int = 0) -> Detections:
    count = len(corners)
    labels, scores = torch.full((count,), label), torch.linspace(0.9, 0.5, count)
    return Detections(torch.tensor(corners).view(-1, 4), labels, scores)


FULL, HALF = (0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 30.0, 30.0)


@pytest.mark.parametrize(
    ("found", "map50", "map50_95"),
    [
        (boxes(FULL, HALF), 1.0, 1.0),
        (boxes(FULL), 0.5, 0.5),
        ((boxes((0.0, 0.0, 10.0, 7.2), (20.0, 20.0, 30.0, 27.2))), 1.0, 0.5),  # IoU 0.72
        (boxes(FULL, HALF, label=1), 0.0, 0.0),
        (boxes(), 0.0, 0.0),
    ],
)
def test_average_precision_of_known_detections(
    found: Detections, map50: float, map50_95: float
) -> None:
    measured = average_precision([found], [boxes(FULL, HALF)], ["a", "b"])
    # Interpolation takes half a hundredth off a perfect curve.
    assert measured["map50"] == pytest.approx(map50, abs=0.01)
    assert measured["map50_95"] == pytest.approx(map50_95, abs=0.01)
    assert "ap b" not in measured, "there is none to find"


def test_a_third_of_the_channels_is_half_of_the_parameters_and_stays_away(folder: Path) -> None:
    """What the reference measured: 1,188,625 of 2.59 million with `round_to` 8."""
    settings = config(
        folder,
        pruning_ratio=0.3,
        prune={"criterion": "magnitude", "round_to": {"channels": 8}},
        finetune={**STEPS, "steps": 2, "validate_every": 2},
        distill=ATTENTION,
    )
    found = prune(settings)
    before = rebuild(settings, source=found.pruned, target=folder / "before.pth")
    finetune(settings)
    after = rebuild(settings)
    assert after.full_parameters == 2_590_409
    assert before.parameters == after.parameters == 1_188_609
    assert max(before.difference, after.difference) < 1e-6
    assert shapes(folder / "before.pth") == shapes(after.path)
    assert not same(load(folder / "before.pth").params, load(after.path).params)
    with pytest.raises(KdpError, match="this one is pruned"):
        export(after.path, ExportRequest("ultralytics"), settings)


def shapes(path: Path) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in load(path).params.items()}


@pytest.mark.parametrize("part", ["4.second", "9.cv1", "16.cv2"])
def test_replay_masks_channels_that_are_read_in_several_places(folder: Path, part: str) -> None:
    """What OPTIN measures by, against the whole network run with one channel less."""
    model, task = lively(), task_for(ARCH, config(folder))
    groups, x = task.groups(model), torch.rand(2, 3, SIZE, SIZE)
    name = f"layers.{part}.conv"
    (group,) = (one for one in groups if one.name == name)
    assert len(group.mask_points) > 1
    found = Replay(model, groups, list(TAPS), x).without(group, [0, 5]).output.chunk(2)
    for unit, output in zip((0, 5), found, strict=True):
        masks = full_masks(groups)
        masks[name][unit] = False
        with masks_applied(model, groups, masks), torch.no_grad():
            torch.testing.assert_close(output, model(x), rtol=1e-4, atol=1e-4)


def test_gradients_score_every_channel(folder: Path) -> None:
    model, task = lively(), task_for(ARCH, config(folder))
    groups = task.groups(model)
    score = taylor(ScoringContext(model, groups, task, task.calibration_data(), seed=0))
    scores = [score(group) for group in groups]
    assert all(torch.isfinite(values).all() for values in scores)
    assert all(float(values.std()) > 0 for values in scores)


def test_exports_find_what_the_network_finds(folder: Path) -> None:
    model, settings = lively(), config(folder)
    file = folder / "net.pth"
    save(file, Artifact(model.state_dict(), ARCH, make_record("train", {})))
    task = task_for(ARCH, settings)
    onnx = export(file, ExportRequest("onnx"), settings).path
    script = torch.jit.load(export(file, ExportRequest("torchscript"), settings).path)
    plain = export(file, ExportRequest("ultralytics"), settings).path
    x = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = decode(model(x), (SIZE, SIZE))
        for network in (load_runnable(onnx)[0], load_runnable(plain)[0], script):
            found = task.decoded(network(x), (SIZE, SIZE))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    for network in (load_runnable(onnx)[0], load_runnable(plain)[0]):
        # Rounding may exchange two detections of nearly the same probability.
        assert task.evaluate(network)["toy"] == pytest.approx(task.evaluate(model)["toy"], abs=1e-3)


def test_an_export_that_forgot_its_probabilities_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside coordinates of some hundred pixels they are small."""
    torchscript = export_stage.TORCHSCRIPT

    def forgetful(*arguments: Any) -> Any:
        content, run = torchscript.write(*arguments)
        return content, lambda x: torch.cat([run(x)[:, :4], run(x)[:, 4:] * 0], 1)

    fake = replace(torchscript, write=forgetful, suffix=".onnx", precisions=("fp32", "int8"))
    monkeypatch.setattr(export_stage, "onnx_format", lambda: fake)
    for precision in ("fp32", "int8"):
        with pytest.raises(KdpError, match="differs from the original by 1"):
            export(folder / "teacher.pth", ExportRequest("onnx", precision), config(folder))


def test_an_export_of_another_size_is_run_at_it(folder: Path) -> None:
    teacher, settings = folder / "teacher.pth", config(folder)
    with pytest.raises(KdpError, match="--size 64 96: yolo11 reads squares"):
        export(teacher, ExportRequest("onnx", size=(64, 96)), settings)
    small = export(teacher, ExportRequest("onnx", size=(64, 64)), settings).path
    network, arch, _ = load_runnable(small)
    image = read_rgb(folder / "voc/JPEGImages/0.jpg")
    assert list(task_for(arch, settings).detect(network, iter([image]), 0.001, 0.45))


def test_infer_draws_the_boxes_it_is_sure_of_and_prints_them(folder: Path) -> None:
    image, teacher = folder / "voc/JPEGImages/0.jpg", folder / "teacher.pth"
    task, network = task_for(ARCH, config(folder)), load_network(teacher)[0]
    (all_of_them,) = task.detect(network, iter([read_rgb(image)]), 0.001, 0.45)
    least = float(all_of_them.scores.median())
    asked = ["--headless", "--to", str(folder / "out"), "--set", f"detect.confidence={least}"]
    done = run_kdp("infer", str(teacher), str(image), *asked)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[0])
    assert set(found) == {"file", "written", "ms", "objects"}
    assert Path(found["written"]).exists()
    assert 0 < len(found["objects"]) < len(all_of_them.scores)
    assert all(one["probability"] >= round(least, 4) for one in found["objects"])


def test_compare_names_the_protocol_and_the_precision_of_each_class(folder: Path) -> None:
    table = folder / "table.json"
    done = run_kdp(
        "compare",
        str(folder / "teacher.pth"),
        str(folder / "teacher.pth"),
        "-c",
        str(config_file(folder)),
        "--json",
        str(table),
    )
    assert done.returncode == 0, done.stderr
    text = table.read_text()
    assert "map50_95" in text
    assert all(f"ap {name}" in text for name in CLASSES)
