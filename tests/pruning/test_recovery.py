"""Recovery without training: layers are refitted in closed form, and never make things worse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.config import Config
from kdp.errors import KdpError
from kdp.models import build
from kdp.pruning.groups import Group, MaskPoint, Masks, ParamSlice, full_masks
from kdp.pruning.masks import removed_are_zero, zero_removed
from kdp.pruning.rebuild import largest_difference, rebuild
from kdp.pruning.recovery.readers import input_rows, output_rows
from kdp.pruning.recovery.recover import Calibration, Recovered, recover
from kdp.pruning.recovery.streams import StreamWatch
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.types import Arch
from tests.conftest import TINY
from tests.models import yolo_helpers
from tests.pruning.helpers import random_masks


class TwoLayers(nn.Module):
    """Two linear layers; `hidden` units between them can be pruned."""

    def __init__(self, hidden: int = 6, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(4, hidden, bias=bias)
        self.second = nn.Linear(hidden, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def _group(units: int = 6, bias: bool = True) -> Group:
    rows = [ParamSlice("first.weight", 0)] + [ParamSlice("first.bias", 0)] * bias
    slices = (*rows, ParamSlice("second.weight", 1))
    return Group("hidden", "units", units, (MaskPoint("second", -1),), slices, "hidden")


def _distance(output: Tensor, reference: Tensor) -> Tensor:
    return (output - reference).square().flatten(1).mean(1)


def _recovered(
    model: nn.Module,
    keep: list[bool],
    fit: Tensor,
    held_out: Tensor | None = None,
    ridge: float = 1e-9,
    bias: bool = True,
    distance: Callable[[Tensor, Tensor], Tensor] = _distance,
) -> tuple[nn.Module, Recovered]:
    """A copy of the network that is pruned by a mask of its hidden units and recovered."""
    groups, masks = [_group(len(keep), bias)], {"hidden": torch.tensor(keep)}
    pruned = copy.deepcopy(model)
    zero_removed(pruned, groups, masks)
    samples = Calibration([fit], [fit if held_out is None else held_out], distance)
    return pruned, recover(model, pruned, groups, masks, samples, ridge)


def _rand(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5)).double()


@pytest.mark.parametrize("bias", [True, False])
def test_a_unit_that_depends_on_kept_ones_is_recovered_exactly(bias: bool) -> None:
    torch.manual_seed(0)
    model = TwoLayers(bias=bias).double()
    x = _rand(200, 4)
    # Six units of four inputs: any four of them determine the rest.
    pruned, result = _recovered(model, [True] * 4 + [False] * 2, x, bias=bias)
    assert result.before > 1e-3
    torch.testing.assert_close(pruned(x), model(x), rtol=1e-5, atol=1e-5)


def test_removed_units_stay_exactly_zero() -> None:
    torch.manual_seed(0)
    keep = [True, False, True, False, True, True]
    pruned, result = _recovered(TwoLayers().double(), keep, _rand(50, 4))
    assert result.kept
    assert removed_are_zero(pruned, [_group()], {"hidden": torch.tensor(keep)})


def test_a_constant_unit_goes_into_the_bias() -> None:
    torch.manual_seed(0)
    model = TwoLayers().double()
    with torch.no_grad():
        model.first.weight[5] = 0.0
        model.first.bias[5] = 7.0
    x = _rand(100, 4)
    pruned, _ = _recovered(model, [True] * 5 + [False], x)
    torch.testing.assert_close(pruned(x), model(x), rtol=1e-5, atol=1e-5)


def test_without_any_kept_unit_the_bias_gives_the_mean() -> None:
    torch.manual_seed(0)
    model, x = TwoLayers().double(), _rand(100, 4)
    pruned, result = _recovered(model, [False] * 6, x)
    assert result.kept
    torch.testing.assert_close(pruned(x)[0], model(x).mean(0), rtol=1e-6, atol=1e-6)


def test_inputs_that_are_always_zero_are_left_alone() -> None:
    torch.manual_seed(0)
    model = TwoLayers(bias=False).double()
    with torch.no_grad():
        model.first.weight[:5] = 0.0
    pruned, _ = _recovered(model, [True] * 5 + [False], _rand(30, 4), bias=False)
    torch.testing.assert_close(pruned.second.weight[:, :5], model.second.weight[:, :5])


def test_fewer_samples_than_inputs_do_not_make_the_layer_worse() -> None:
    torch.manual_seed(0)
    model = TwoLayers(hidden=40).double()
    keep = [i % 4 != 0 for i in range(40)]
    _, result = _recovered(model, keep, _rand(3, 4), _rand(60, 4).flip(0), ridge=1e-3)
    assert all(fit.after <= fit.before for fit in result.layers)


def test_samples_that_mislead_leave_the_network_as_cut() -> None:
    torch.manual_seed(0)
    model = TwoLayers().double()
    keep = [True] * 5 + [False]
    # Its own error falls, but the output's distance says that the refit is worse.
    pruned, result = _recovered(model, keep, _rand(80, 4), distance=lambda a, b: -_distance(a, b))
    assert not result.kept
    cut = copy.deepcopy(model)
    zero_removed(cut, [_group()], {"hidden": torch.tensor(keep)})
    for name, value in cut.state_dict().items():
        assert torch.equal(pruned.state_dict()[name], value)


def test_two_runs_agree_bit_for_bit() -> None:
    torch.manual_seed(0)
    model, x = TwoLayers().double(), _rand(64, 4)
    first, second = (_recovered(model, [True] * 4 + [False] * 2, x)[0] for _ in range(2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_refused(value: float) -> None:
    x = _rand(10, 4)
    x[7, 2] = value
    with pytest.raises(KdpError, match="calibration sample leads to outputs that are not finite"):
        _recovered(TwoLayers().double(), [True] * 5 + [False], x)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 1), "stride": (2, 1), "padding": (1, 0)},
        {"kernel_size": 3, "dilation": 2, "stride": 2},
        {"kernel_size": 2, "padding": "same"},
        {"kernel_size": 1},
    ],
    ids=str,
)
def test_rows_of_a_convolution_give_its_outputs(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(5, 4, **options).double(), _rand(2, 5, 9, 11)
    positions = torch.tensor([0, 3, 7, 19, 23])
    rows = input_rows(conv, x, positions)
    outputs = rows @ conv.weight.flatten(1).T + conv.bias
    torch.testing.assert_close(outputs, output_rows(conv, conv(x), positions))


class Residual(nn.Module):
    """A stream that a layer's output is added to, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.layer, self.norm = way, nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.earlier = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        s, y = self.earlier(x), self.layer(x)
        match self.way:
            case "sum":
                return s + y
            case "in place":
                return s.add_(y)
            case "behind a normalization":
                return self.norm(y) + s
            case "transposed":
                return (s.transpose(2, 3) + y.transpose(2, 3)).transpose(2, 3)
            case "twice":
                return (y + s) + x
            case "later":
                return y + F.avg_pool2d(s, 1)
            case "behind an activation":
                return s + y.relu()
            case "of itself":
                return y + y.sigmoid()
            case "scaled":
                return torch.add(s, y, alpha=2)
            case "changed in place":
                return s + y.relu_()
        raise AssertionError(self.way)


@pytest.mark.parametrize(
    "way", ["sum", "in place", "behind a normalization", "transposed", "twice", "later"]
)
def test_what_is_added_to_a_layers_output_is_found(way: str) -> None:
    torch.manual_seed(0)
    model, x = Residual(way).eval(), torch.rand(2, 3, 4, 5)
    with torch.no_grad(), StreamWatch(model, ["layer"]) as watch:
        model(x)
        expected = model.earlier(x) + (x if way == "twice" else 0)
    sighting = watch.sightings["layer"]
    torch.testing.assert_close(sighting.stream(), expected)
    assert (sighting.norm is model.norm) == (way == "behind a normalization")


@pytest.mark.parametrize("way", ["behind an activation", "of itself", "scaled", "changed in place"])
def test_what_the_layer_cannot_repair_is_no_stream(way: str) -> None:
    model, x = Residual(way).eval(), torch.rand(2, 3, 4, 5)
    with torch.no_grad(), StreamWatch(model, ["layer"]) as watch:
        model(x)
    assert not watch.sightings["layer"].terms


def _tiny_catanet(model: nn.Module, task: Task) -> tuple[nn.Module, list[Group], Masks, Recovered]:
    groups = task.groups(model)
    masks = random_masks(groups)
    pruned = copy.deepcopy(model)
    zero_removed(pruned, groups, masks)
    x = torch.rand(6, 3, 14, 12, generator=torch.Generator().manual_seed(2)).double()
    samples = Calibration(x[:4].split(2), [x[4:]], _distance)
    return pruned, groups, masks, recover(model, pruned, groups, masks, samples, 1e-3)


NETWORKS = {
    "classifier": ("mask_classifier", {"channels": [8, 12], "image_size": 32}, (3, 32, 32)),
    "parallel branches": (
        "rep_mobile",
        {"stem": 8, "channels": [8, 8], "hidden": [12, 12], "strides": [[1, 1], [1, 1]]},
        (1, 32, 16),
    ),
    "detector": (yolo_helpers.ARCH.name, yolo_helpers.ARCH.args, (3, 32, 32)),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_channels_of_every_family_are_recovered(network: str) -> None:
    name, args, shape = NETWORKS[network]
    arch = Arch(name, args)
    torch.manual_seed(0)
    model = build(name, **args)
    # Statistics of real activations: with others, a random network does not behave like a trained.
    x = torch.rand(8, *shape, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        model.train()(x)
    model.eval()
    task = task_for(arch, Config.model_validate({"output": {"name": "test"}}))
    groups = task.groups(model)
    masks = full_masks(groups)
    for group in groups[:: max(1, len(groups) // 8)]:  # of a detector with 80 a few, to save time
        masks[group.name][1::3] = False
    pruned = copy.deepcopy(model)
    zero_removed(pruned, groups, masks)
    result = recover(
        model, pruned, groups, masks, Calibration(x[:6].split(3), [x[6:]], _distance), 1e-3
    )
    assert all(fit.after <= fit.before for fit in result.layers)
    assert result.kept
    assert removed_are_zero(pruned, groups, masks)
    small, _ = rebuild(pruned, arch, groups, masks)
    assert largest_difference(pruned, small, x[:1]) < 1e-6


def test_heads_and_neurons_of_catanet_are_recovered(model: nn.Module, task: Task) -> None:
    pruned, groups, masks, result = _tiny_catanet(model, task)
    assert {fit.name.rpartition(".")[2] for fit in result.layers} == {"proj", "fc2"}
    assert all(fit.after <= fit.before for fit in result.layers)
    assert result.kept
    assert removed_are_zero(pruned, groups, masks)
    small, _ = rebuild(pruned.float(), Arch("catanet", TINY), groups, masks)
    assert largest_difference(pruned, small, torch.rand(1, 3, 16, 16)) < 1e-6
