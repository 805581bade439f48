"""The face-mask classifier: its networks, its data, and the chain on channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact, load, make_record, save
from kdp.compose import load_config
from kdp.config import Config
from kdp.data.folders import class_folders, toy_faces
from kdp.data.labelled import LabelledDataset
from kdp.errors import KdpError
from kdp.measure.classes import confusion, summary
from kdp.models import build
from kdp.models.loading import load_network
from kdp.pruning.dependency import channel_groups
from kdp.pruning.masks import gated, zero_removed
from kdp.pruning.rebuild import rebuild as cut
from kdp.stages.finetune import finetune
from kdp.stages.prune import prune
from kdp.stages.rebuild import rebuild
from kdp.stages.train import train
from kdp.tasks.classification import Classification
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
    arch = {"name": "mask_classifier", "args": {}}
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
    arch = {"name": "mask_classifier", "args": {"image_size": 64}}
    record = make_record("train", {})
    save(tmp_path / "base.pth", Artifact(lively().state_dict(), arch, record))
    where = [f"output.dir={tmp_path}", f"teacher={tmp_path}/base.pth", f"pruning_ratio={ratio}"]
    config = load_config(ROOT / "configs" / "face_mask_prune.yml", [*where, "device=cpu"])
    found = prune(config)
    done = rebuild(config, source=found.pruned)
    channels, count = PRUNED[ratio]
    small, arch, _ = load_network(done.path)
    assert arch["args"]["channels"] == channels
    assert parameters(small) == count


def test_groups_cut_exactly_what_a_gate_masks() -> None:
    model = lively(channels=[4, 6, 8])
    groups, x = groups_of(model), torch.rand(2, 3, 32, 32)
    masks = {g.name: torch.arange(g.units) % 3 != 0 for g in groups}
    assert [g.index for g in groups] == [0, 1, 2]
    with gated(model, groups, masks), torch.no_grad():
        expected = model(x)
    arch = {"name": "mask_classifier", "args": {"channels": [4, 6, 8]}}
    small, small_arch = cut(model, arch, groups, masks)
    assert small_arch["args"]["channels"] == [2, 4, 5]
    with torch.no_grad():
        torch.testing.assert_close(small(x), expected)
        zero_removed(model, groups, masks)
        torch.testing.assert_close(model(x), expected)


def test_finding_groups_leaves_the_network_as_it_was() -> None:
    model = lively(channels=[4, 6, 8]).train()
    model.get_parameter("head.bias").requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups_of(model)
    assert model.training
    assert not model.get_parameter("head.bias").requires_grad
    assert model.get_parameter("head.weight").requires_grad
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_channels_that_two_layers_read_are_refused() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) * self.c(self.a(x))

    with pytest.raises(KdpError, match="the channels of a"):
        channel_groups(Forked(), torch.rand(1, 3, 4, 4), "channels")


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
    metrics = load(tmp_path / "w/tiny_finetuned_logits.pth").record["metrics"]["toy"]
    assert 0 <= metrics["accuracy"] <= 1
    assert sum(value for name, value in metrics.items() if " as " in name) == 40


def test_channels_go_while_training(tmp_path: Path) -> None:
    dynamic = {"criterion": "taylor", "end_step": 4, "period": 2}
    config = settings(tmp_path, distill=None, mac_constraint=0.6, dynamic=dynamic)
    train(config)
    assert rebuild(config).difference < 1e-6


def test_the_toy_can_be_learnt(tmp_path: Path) -> None:
    longer = {**SHORT, "batch_size": 16, "steps": 60, "lr": 0.01, "validate_every": 60}
    train(settings(tmp_path, distill=None, train=longer))
    metrics = load(tmp_path / "w/tiny.pth").record["metrics"]["toy"]
    assert metrics["accuracy"] > 0.8


def test_confusion_accuracy_and_f1() -> None:
    labels, found = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0])
    counts = confusion(labels, found, 2)
    assert counts.tolist() == [[2, 1], [1, 1]]
    values = summary(counts, ["a", "b"])
    assert values["accuracy"] == pytest.approx(0.6)
    assert values["f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert values["a as b"] == 1


def write_pictures(folder: Path) -> None:
    for name, level in (("with_mask", 40), ("without_mask", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            picture = np.full((20, 24, 3), level + number, np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), picture)


def test_a_folder_of_pictures_for_each_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path)
    (tmp_path / "without_mask" / "1.png").write_bytes(b"no picture")
    found = class_folders(tmp_path, ("with_mask", "without_mask"))
    assert [one.label for one in found] == [0, 0, 0, 1, 1]
    assert "1 corrupt pictures left out: without_mask/1.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("classes", "message"),
    [(("with_mask",), "'without_mask'; classes are"), (("with_mask", "x", "without_mask"), "x")],
)
def test_folders_and_classes_must_agree(
    tmp_path: Path, classes: tuple[str, ...], message: str
) -> None:
    write_pictures(tmp_path)
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


def test_an_epoch_shows_every_picture_once() -> None:
    pictures = toy_faces(False)
    data = LabelledDataset(pictures, 8, seed=0, augment=False, length=2 * len(pictures))
    for epoch in range(2):
        numbers = range(epoch * len(pictures), (epoch + 1) * len(pictures))
        assert sum(int(data[n]["label"]) for n in numbers) == len(pictures) // 2
    first = [data[n]["image"] for n in range(5)]
    second = [data[n + len(pictures)]["image"] for n in range(5)]
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
