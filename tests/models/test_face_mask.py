"""The face-mask classifier: its networks, its data, and the chain on channels."""

from __future__ import annotations

import struct
import weakref
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact, load, make_record, save
from kdp.config import Config
from kdp.config.compose import load_config
from kdp.data.folders import LabelledImage, class_folders, toy_faces
from kdp.data.images import ImageArray, read_rgb
from kdp.data.labelled import LabelledDataset, resized
from kdp.errors import KdpError
from kdp.measure.classes import confusion, summary
from kdp.models import build
from kdp.models.loading import load_network
from kdp.models.mask_classifier import CLASSES
from kdp.models.taps import Taps
from kdp.pruning.dependency import channel_groups
from kdp.pruning.masks import masks_applied, zero_removed
from kdp.pruning.rebuild import rebuild as cut
from kdp.pruning.replay import Replay
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train import finetune as finetuning
from kdp.stages.train.finetune import finetune
from kdp.stages.train.train import train
from kdp.tasks.classification.task import Classification
from kdp.types import Arch
from tests.conftest import ROOT
from tests.runs import SHORT

PRUNED = {0.3: ([22, 44, 89], 45195), 0.5: ([16, 32, 64], 23938), 0.7: ([9, 19, 38], 8556)}
SMALL = {"channels": [4, 6, 8], "dropout": 0.0, "image_size": 32}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def lively(**args: Any) -> nn.Module:
    """A network in eval mode whose normalisations have seen data."""
    torch.manual_seed(0)
    model = build("mask_classifier", **args)
    for _ in range(3):
        model(torch.rand(4, 3, 32, 32))
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def groups_of(model: nn.Module) -> list[Any]:
    arch = Arch("mask_classifier", {})
    config = Config.model_validate({"output": {"name": "x"}})
    return Classification(arch, config).groups(model)


def settings(folder: Path, **changes: Any) -> Config:
    """The whole chain on the toy faces at 32x32, with a network that is fast to train."""
    plain = {
        "device": "cpu",
        "output": {"name": "tiny", "dir": str(folder / "w"), "runs": str(folder / "runs")},
        "model": {"name": "mask_classifier", "args": SMALL},
        "teacher": str(folder / "w/tiny.pth"),
        "evaluation": {"toy": {}},
        "prune": {"criterion": "magnitude", "calibration": {"patches": 8}},
        "distill": {"losses": {"logits": {}}},
        "train": {**SHORT, "batch_size": 16},
        "finetune": {**SHORT, "batch_size": 16},
    }
    return Config.model_validate({**plain, **changes})


@pytest.mark.parametrize(
    ("channels", "count"), [((32, 64, 128), 93954), ((24, 48, 96), 53186), ((8, 16, 32), 6210)]
)
def test_the_networks_have_exactly_these_parameters(channels: tuple[int, ...], count: int) -> None:
    assert parameters(build("mask_classifier", channels=channels)) == count


@pytest.mark.parametrize("ratio", PRUNED)
def test_pruning_leaves_exactly_these_parameters(tmp_path: Path, ratio: float) -> None:
    arch = Arch("mask_classifier", {"image_size": 64})
    record = make_record("train", {})
    save(tmp_path / "base.pth", Artifact(lively().state_dict(), arch, record))
    where = [f"output.dir={tmp_path}", f"teacher={tmp_path}/base.pth", f"pruning_ratio={ratio}"]
    config = load_config(ROOT / "configs" / "face_mask_prune.yml", [*where, "device=cpu"])
    found = prune(config)
    done = rebuild(config, source=found.pruned)
    channels, count = PRUNED[ratio]
    small, arch, _ = load_network(done.path)
    assert arch.args["channels"] == channels
    assert parameters(small) == count


def test_finetuning_computes_only_what_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings(tmp_path, distill=None))
    config = settings(tmp_path, pruning_ratio=0.5)
    prune(config)
    widths: set[int] = set()
    student = finetuning._PrunedNetwork.student

    def watched(*arguments: Any) -> nn.Module:
        model = student(*arguments)
        model.get_submodule("head").register_forward_pre_hook(
            lambda _, inputs: widths.add(inputs[0].shape[1])
        )
        return model

    monkeypatch.setattr(finetuning._PrunedNetwork, "student", watched)
    fast = load(finetuning.finetune(config)["finetuned"]).params
    assert widths == {SMALL["channels"][-1] // 2}
    monkeypatch.setattr(finetuning._PrunedNetwork, "student", lambda self, config: self.model)
    slow = load(finetuning.finetune(config)["finetuned"]).params
    for name, tensor in slow.items():
        # Statistics of removed channels are never used. The normalisation after a convolution
        # cancels the convolution's bias: its gradient is rounding alone, which Adam scales up.
        if "running" not in name and not name.endswith(".0.bias"):
            torch.testing.assert_close(fast[name], tensor, rtol=1e-3, atol=1e-3)


def test_groups_cut_exactly_what_a_gate_masks() -> None:
    model = lively(channels=[4, 6, 8])
    groups, x = groups_of(model), torch.rand(2, 3, 32, 32)
    masks = {g.name: torch.arange(g.units) % 3 != 0 for g in groups}
    assert [g.positions for g in groups] == [(0,), (1,), (2,)]
    with masks_applied(model, groups, masks), torch.no_grad():
        expected = model(x)
    arch = Arch("mask_classifier", {"channels": [4, 6, 8]})
    small, small_arch = cut(model, arch, groups, masks)
    assert small_arch.args["channels"] == [2, 4, 5]
    with torch.no_grad():
        torch.testing.assert_close(small(x), expected)
        zero_removed(model, groups, masks)
        torch.testing.assert_close(model(x), expected)


def test_optin_looks_at_every_feature_that_a_channel_changes() -> None:
    model, x = lively(channels=[4, 6, 8]), torch.rand(2, 3, 32, 32)
    groups, names = groups_of(model), [f"blocks.{number}" for number in range(3)]
    replay = Replay(model, groups, names, x)
    for group in groups:
        masks = {g.name: torch.ones(g.units, dtype=torch.bool) for g in groups}
        masks[group.name][1] = False
        with masks_applied(model, groups, masks), Taps(model, names) as features, torch.no_grad():
            model(x)
        dense = replay.dense.features
        # A tolerance, not equality: both come from runs of their own.
        changed = {n: f for n, f in features.items() if not torch.allclose(f, dense[n], atol=1e-5)}
        found = replay.without(group, [1]).features
        assert changed.keys() == found.keys()
        assert all(torch.allclose(found[n], f, atol=1e-5) for n, f in changed.items())


def test_finding_groups_leaves_the_network_as_it_was() -> None:
    model = lively(channels=[4, 6, 8]).train()
    model.get_parameter("head.bias").requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups_of(model)
    assert model.training
    assert not model.get_parameter("head.bias").requires_grad
    assert model.get_parameter("head.weight").requires_grad
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_channels_that_two_layers_read_have_a_gate_at_each() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            return self.b(a) * self.c(a)

    model, x = Forked(), torch.rand(1, 3, 4, 4)
    (group,) = channel_groups(model, x, "channels")
    assert sorted(gate.module for gate in group.mask_points) == ["b", "c"]
    masks = {group.name: torch.tensor([True, False, True])}
    with masks_applied(model, [group], masks), torch.no_grad():
        expected = model(x)
    zero_removed(model, [group], masks)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("criterion", ["optin", "taylor", "magnitude"])
def test_the_chain_works_with_a_budget_and_any_criterion(tmp_path: Path, criterion: str) -> None:
    section = {"criterion": criterion, "calibration": {"patches": 8}}
    config = settings(tmp_path, mac_constraint=0.6, prune=section)
    train(config.model_copy(update={"distill": None}))
    found = prune(config)
    assert 0.4 < found.plan.macs / found.plan.dense_macs <= 0.6
    finetune(config)
    done = rebuild(config)
    assert done.difference < 1e-6
    metrics = load(tmp_path / "w/tiny_finetuned_logits.pth").record.metrics["toy"]
    right = sum(metrics[f"{name} as {name}"] for name in CLASSES)
    assert metrics["accuracy"] == right / 40
    assert sum(value for name, value in metrics.items() if " as " in name) == 40


def test_channels_go_while_training(tmp_path: Path) -> None:
    dynamic = {"criterion": "taylor", "end_step": 4, "period": 2}
    config = settings(tmp_path, distill=None, mac_constraint=0.6, dynamic=dynamic)
    train(config)
    assert rebuild(config).difference < 1e-6


def test_the_toy_can_be_learnt(tmp_path: Path) -> None:
    longer = {**SHORT, "batch_size": 16, "steps": 60, "lr": 0.01, "validate_every": 60}
    train(settings(tmp_path, distill=None, train=longer))
    metrics = load(tmp_path / "w/tiny.pth").record.metrics["toy"]
    assert metrics["accuracy"] > 0.8


def test_confusion_accuracy_and_f1() -> None:
    labels, found = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0])
    counts = confusion(labels, found, 2)
    assert counts.tolist() == [[2, 1], [1, 1]]
    values = summary(counts, ["a", "b"])
    assert values["accuracy"] == pytest.approx(0.6)
    assert values["f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert values["a as b"] == 1


def write_images(folder: Path) -> None:
    for name, level in (("with_mask", 40), ("without_mask", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            image = np.full((20, 24, 3), level + number, np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), image)


def test_a_folder_of_images_for_each_class(tmp_path: Path, messages: list[str]) -> None:
    write_images(tmp_path)
    (tmp_path / "without_mask" / "1.png").write_bytes(b"no image")
    found = class_folders(tmp_path, ("with_mask", "without_mask"))
    assert [one.label for one in found] == [0, 0, 0, 1, 1]
    assert len(class_folders(tmp_path, CLASSES)) == 5
    (message,) = messages  # logged once, however often the folder is read
    assert message.endswith("1 corrupt images left out: without_mask/1.png")


def test_a_class_of_corrupt_images_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    for path in (tmp_path / "without_mask").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(KdpError, match="no readable image of the class 'without_mask'"):
        class_folders(tmp_path, CLASSES)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("with_mask",), "'without_mask'; classes are with_mask$"),
        (("with_mask", "scarf", "without_mask"), "the image folder .*scarf does not exist"),
    ],
)
def test_folders_and_classes_must_agree(
    tmp_path: Path, classes: tuple[str, ...], message: str
) -> None:
    write_images(tmp_path)
    with pytest.raises(KdpError, match=message):
        class_folders(tmp_path, classes)


def test_a_sample_is_the_same_whoever_asks() -> None:
    def samples() -> LabelledDataset:
        return LabelledDataset(toy_faces(False), 16, seed=3, augment=True, length=400)

    one, other = samples(), samples()
    for number in (5, 170, 6):
        torch.testing.assert_close(one[number], other[number])
    epoch = [float(samples()[n]["image"].sum()) for n in range(4)]
    assert len(set(epoch)) == 4


def test_an_epoch_shows_every_image_once() -> None:
    images = toy_faces(False)
    data = LabelledDataset(images, 8, seed=0, augment=False, length=2 * len(images))
    for epoch in range(2):
        numbers = range(epoch * len(images), (epoch + 1) * len(images))
        assert sum(int(data[n]["label"]) for n in numbers) == len(images) // 2
    first = [data[n]["image"] for n in range(5)]
    second = [data[n + len(images)]["image"] for n in range(5)]
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def task_of(folder: Path, **args: Any) -> Classification:
    arch = Arch("mask_classifier", {**SMALL, **args})
    return Classification(arch, settings(folder))


def test_networks_of_other_classes_solve_another_task(tmp_path: Path) -> None:
    task, swapped = task_of(tmp_path), task_of(tmp_path, classes=CLASSES[::-1])
    assert task.metric_protocol != swapped.metric_protocol
    assert "with_mask, without_mask" in task.metric_protocol
    assert len(task.evaluation_sets["toy"]) == 40
    with pytest.raises(KdpError, match="the network has without_mask, with_mask; use samples"):
        _ = swapped.evaluation_sets


def test_six_blocks_have_six_groups() -> None:
    model = build("mask_classifier", channels=[4] * 6)
    assert [group.units for group in groups_of(model)] == [4] * 6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"chanels": [4]}, "no argument 'chanels'; did you mean 'channels'"),
        ({"classes": "masked"}, "classes must be 2 names or more, not 'masked'"),
        ({"classes": ["yes"]}, "classes must be 2 names or more"),
        ({"classes": [True, False]}, "classes must be 2 names or more"),
        ({"classes": ["a", ""]}, "classes must be 2 names or more"),
        ({"classes": ["a", "b", "a"]}, "classes must differ"),
        ({"image_size": 7}, "image_size must be a whole number >= 8, not 7"),
        ({"image_size": "128"}, "image_size must be a whole number >= 8, not '128'"),
        ({"image_size": 64.0}, "image_size must be a whole number"),
        ({"image_size": True, "channels": [4]}, "image_size must be a whole number"),
        ({"channels": []}, "needs channels"),
    ],
)
def test_arguments_that_are_none_are_refused(args: dict[str, Any], message: str) -> None:
    with pytest.raises(KdpError, match=f"cannot build 'mask_classifier': .*{message}"):
        build("mask_classifier", **args)


def test_either_side_shrinks_by_averaging() -> None:
    stripes = np.zeros((10, 4000, 3), np.uint8)
    stripes[:, ::2] = 200
    for image in (stripes, stripes.transpose(1, 0, 2)):
        assert np.unique(resized(image, 20)).tolist() == [100]
    plain = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(resized(plain, 8), cv2.resize(plain, (8, 8)))
    assert np.array_equal(
        resized(plain, 2), cv2.resize(plain, (2, 2), interpolation=cv2.INTER_AREA)
    )


def test_images_are_read_one_at_a_time(tmp_path: Path) -> None:
    held: list[weakref.ref[ImageArray]] = []

    def read(number: int) -> ImageArray:
        assert sum(one() is not None for one in held) <= 1
        image = np.full((64, 64, 3), number, np.uint8)
        held.append(weakref.ref(image))
        return image

    task, model = task_of(tmp_path), lively(**SMALL)
    images = [LabelledImage(f"{i}", i % 2, partial(read, i)) for i in range(70)]
    task.__dict__["evaluation_sets"] = {"toy": images}
    assert sum(v for k, v in task.evaluate(model)["toy"].items() if " as " in k) == 70
    assert len(task.predictions(model)) == 70
    assert len(dict(task.comparison_images([model, model], ["a", "b"]))) >= 35
    whole = [np.full((64, 64, 3), i, np.uint8) for i in range(70)]
    assert torch.equal(task.predict(model, whole), task.predict(model, iter(whole)))


def png_header(side: int) -> bytes:
    """A PNG that claims to be a square of this side."""
    body = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", crc32(body))


def test_what_opencv_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huge, deep = tmp_path / "huge.png", tmp_path / "deep.tiff"
    huge.write_bytes(png_header(60000))
    with pytest.raises(KdpError, match=r"huge\.png: it is missing or corrupt"):
        read_rgb(huge)
    cv2.imwrite(str(deep), np.ones((4, 5, 3), np.float32))
    with pytest.raises(KdpError, match=r"deep\.tiff: pixels of float32 are not supported"):
        read_rgb(deep)

    def failing(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(np, "fromfile", failing)
    with pytest.raises(KdpError, match=r"deep\.tiff: Input/output error"):
        read_rgb(deep)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_budget_on_chained_channels_is_met_with_costs_as_they_then_are(
    tmp_path: Path, share: float
) -> None:
    arch = Arch("mask_classifier", {"image_size": 64})
    save(tmp_path / "w/tiny.pth", Artifact(lively().state_dict(), arch, make_record("train", {})))
    config = settings(tmp_path, model=None, mac_constraint=share)
    plan = prune(config).plan
    assert plan.macs == plan.planned_macs
    assert 0.95 * share < plan.macs / plan.dense_macs <= share


@pytest.mark.parametrize(
    ("name", "count"),
    [("face_mask", 93954), ("face_mask_small", 6210), ("face_mask_pruned_70", 8556)],
)
def test_the_committed_weights_are_these_networks(name: str, count: int) -> None:
    model, _, artifact = load_network(ROOT / "weights" / f"{name}.pth")
    assert parameters(model) == count
    assert artifact.record.metrics["val"]["accuracy"] >= 0.94
