"""Channel pruning of YOLO11."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.measure.complexity import count_macs_of
from kdp.models import build
from kdp.models.ultralytics import import_ultralytics as ultralytics
from kdp.models.yolo11 import TAPS
from kdp.pruning import dependency
from kdp.pruning.groups import full_masks
from kdp.pruning.importance.base import ScoringContext
from kdp.pruning.importance.weights import taylor
from kdp.pruning.masks import masks_applied
from kdp.pruning.rebuild import rebuild as cut
from kdp.pruning.rebuild import smaller_arch
from kdp.pruning.replay import Replay
from kdp.stages.export.export import ExportRequest, export
from kdp.stages.prune.budget import macs_by_width
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train.finetune import finetune
from kdp.tasks import task_for
from tests.conftest import same_params
from tests.models.yolo_helpers import ARCH, ATTENTION, SIZE, STEPS, config, lively


def test_the_rebuilt_network_equals_the_masked_one_and_needs_widths_only(yolo_folder: Path) -> None:
    model, task = lively(), task_for(ARCH, config(yolo_folder))
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


def test_an_endless_search_for_channels_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing dependencies of Ultralytics' own modules does not terminate."""
    monkeypatch.setattr(dependency, "SECONDS", 1.0)
    plain = ultralytics("nn.tasks").DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    before = [parameter.requires_grad for parameter in plain.parameters()]
    with pytest.raises(KdpError, match="search for coupled channels was stopped"):
        dependency.channel_groups(plain, torch.rand(1, 3, 64, 64), "widths")
    assert plain.training
    assert [parameter.requires_grad for parameter in plain.parameters()] == before


def test_macs_are_counted_without_building_the_network(yolo_folder: Path) -> None:
    model, task = lively(), task_for(ARCH, config(yolo_folder))
    groups = task.groups(model)
    random = torch.Generator().manual_seed(1)
    kept = {g.name: int(torch.randint(1, g.units + 1, (1,), generator=random)) for g in groups}
    count = macs_by_width(task, ARCH, groups)
    built = count_macs_of(smaller_arch(ARCH, groups, kept), task.example(task.input_size))
    assert count(kept) == built
    assert "count_by_shapes" in count.__qualname__


def test_pruning_a_third_of_the_channels_halves_the_parameters(
    yolo_folder: Path,
) -> None:
    """The reference has 1,188,625 of 2.59 million parameters left with `round_to` 8."""
    settings = config(
        yolo_folder,
        pruning_ratio=0.3,
        prune={"criterion": "magnitude", "round_to": {"channels": 8}},
        finetune={**STEPS, "steps": 2, "validate_every": 2},
        distill=ATTENTION,
    )
    result = prune(settings)
    before = rebuild(settings, source=result.pruned, target=yolo_folder / "before.pth")
    finetune(settings)
    after = rebuild(settings)
    assert after.full_parameters == 2_590_409
    assert before.parameters == after.parameters == 1_188_609
    assert max(before.difference, after.difference) < 1e-6
    assert shapes(yolo_folder / "before.pth") == shapes(after.path)
    assert not same_params(load(yolo_folder / "before.pth").params, load(after.path).params)
    with pytest.raises(KdpError, match="this one is pruned"):
        export(after.path, ExportRequest("ultralytics"), settings)


def shapes(path: Path) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in load(path).params.items()}


@pytest.mark.parametrize("part", ["4.second", "9.cv1", "16.cv2"])
def test_replay_masks_channels_with_several_readers(yolo_folder: Path, part: str) -> None:
    """Against a full forward pass with one channel masked."""
    model, task = lively(), task_for(ARCH, config(yolo_folder))
    groups, x = task.groups(model), torch.rand(2, 3, SIZE, SIZE)
    name = f"layers.{part}.conv"
    (group,) = (group for group in groups if group.name == name)
    assert len(group.mask_points) > 1
    outputs = Replay(model, groups, list(TAPS), x).without(group, [0, 5]).output.chunk(2)
    for unit, output in zip((0, 5), outputs, strict=True):
        masks = full_masks(groups)
        masks[name][unit] = False
        with masks_applied(model, groups, masks), torch.no_grad():
            torch.testing.assert_close(output, model(x), rtol=1e-4, atol=1e-4)


def test_gradients_score_every_channel(yolo_folder: Path) -> None:
    model, task = lively(), task_for(ARCH, config(yolo_folder))
    groups = task.groups(model)
    score = taylor(ScoringContext(model, groups, task, task.calibration_data(), seed=0))
    scores = [score(group) for group in groups]
    assert all(torch.isfinite(values).all() for values in scores)
    assert all(float(values.std()) > 0 for values in scores)
