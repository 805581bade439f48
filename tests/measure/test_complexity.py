"""Counting MACs and parameters, and measuring latency."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdp.measure.complexity import (
    count_macs,
    count_macs_of,
    count_module_macs,
    parameters,
    thop_version,
)
from kdp.measure.latency import latencies
from kdp.measure.sparsity import sparsity_of, total
from kdp.models import build
from kdp.models.catanet_layers import Attention
from kdp.types import Arch
from tests.conftest import TINY

DIM, HEADS, QK, V, PATCHES, TOKENS = 40, 4, 9, 10, 3, 16
LINEARS = PATCHES * TOKENS * HEADS * DIM * (QK + QK + V + V)
PRODUCTS = PATCHES * HEADS * TOKENS * TOKENS * (QK + V)


@pytest.fixture
def attention() -> tuple[nn.Module, Tensor]:
    return Attention(DIM, HEADS, (QK, V)), torch.rand(PATCHES, TOKENS, DIM)


def test_counts_match_a_calculation_by_hand(attention: tuple[nn.Module, Tensor]) -> None:
    assert count_macs(*attention) == LINEARS + PRODUCTS


def test_module_counts_match_a_calculation_by_hand(attention: tuple[nn.Module, Tensor]) -> None:
    macs, program = count_module_macs(*attention)
    if program.startswith("thop 0.1.1"):
        assert macs == LINEARS
    else:
        assert macs >= LINEARS


@pytest.mark.parametrize(
    ("scale", "side", "everything", "modules"),
    [(2, 64, 4.71e9, 1.975e9), (4, 256, 85.3e9, 46.77e9)],
)
def test_catanet_matches_published_costs(
    scale: int, side: int, everything: float, modules: float
) -> None:
    arch = Arch("catanet", {"upscale": scale})
    example = torch.rand(1, 3, side, side)
    assert count_macs_of(arch, example) == pytest.approx(everything, rel=2e-3)
    if thop_version().startswith("thop 0.1.1"):
        with torch.device("meta"):
            network = build("catanet", upscale=scale)
        assert count_module_macs(network, example.to("meta"))[0] == pytest.approx(modules, rel=2e-3)


def test_macs_of_an_architecture_match_its_network() -> None:
    example = torch.rand(1, 3, 16, 18)
    arch = Arch("catanet", TINY)
    assert count_macs_of(arch, example) == count_macs(build("catanet", **TINY), example)


def test_blocks_without_heads_or_neurons_can_be_counted() -> None:
    empty = {**TINY, "tab_heads": [0, 2], "lrsa_heads": 0, "tab_neurons": 0, "lrsa_neurons": [6, 0]}
    example = torch.rand(1, 3, 16, 16)
    less = count_macs_of(Arch("catanet", empty), example)
    assert 0 < less < count_macs_of(Arch("catanet", TINY), example)


def test_counting_leaves_the_network_unchanged() -> None:
    network, example = build("catanet", **TINY), torch.rand(1, 3, 16, 16)
    network.blocks[0].eval()
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    count_macs(network, example)
    count_module_macs(network, example)
    assert [module.training for module in network.modules()] == modes
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(module._forward_hooks for module in network.modules())


def test_nonzero_parameters_are_counted() -> None:
    network = build("catanet")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1)
        network.first_conv.weight[:7] = 0
    assert parameters(network) == (477_435, 477_435 - 7 * 27)


def test_zeros_are_counted_singly_and_by_rows_and_columns() -> None:
    weight = torch.ones(4, 3, 2, 2)
    weight[1] = 0
    weight[:, 2] = 0
    weight[0, 0, 0, 0] = 0
    sparsities = sparsity_of({"conv.weight": weight, "conv.bias": torch.zeros(4)})
    assert [(p.layer, p.zeros, p.zero_rows, p.zero_columns) for p in sparsities] == [
        ("conv", 12 + 12 + 1, 1, 1),
        ("conv", 4, 0, 0),
    ]
    assert total(sparsities) == (52, 29)


class Recorder(nn.Module):
    """Records its calls."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__()
        self.name, self.calls = name, calls
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(self.name)
        return x


def test_networks_are_timed_in_turn() -> None:
    calls: list[str] = []
    times = latencies([Recorder("a", calls), Recorder("b", calls)], torch.rand(1), 1, 3)
    assert calls == ["a", "b"] * 4
    assert all(t.runs == 3 and 0 < t.q1 <= t.median <= t.q3 for t in times)
