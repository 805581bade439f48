"""What may be pruned in CATANet: heads and hidden neurons of every TAB and LRSA."""

from __future__ import annotations

from torch import nn

from kdp.models.catanet import CATANet
from kdp.pruning.groups import Group, MaskPoint, ParamSlice


def catanet_groups(model: nn.Module) -> list[Group]:
    """Four groups per block, those already empty left out, in the order of execution."""
    if not isinstance(model, CATANet):
        raise TypeError(f"expected a CATANet, got {type(model).__name__}")
    groups: list[Group] = []
    for i in range(len(model.blocks)):
        tab, lrsa = f"blocks.{i}.0", f"blocks.{i}.1"
        irca = [(f"{tab}.irca_attn.to_k", "k"), (f"{tab}.irca_attn.to_v", "v")]
        groups += [
            _heads(model, "tab_heads", i, f"{tab}.iasa_attn", irca),
            _neurons(model, "tab_neurons", i, f"{tab}.mlp.fn"),
            _heads(model, "lrsa_heads", i, f"{lrsa}.layer.0.fn", []),
            _neurons(model, "lrsa_neurons", i, f"{lrsa}.layer.1.fn"),
        ]
    return [group for group in groups if group.units]


def _heads(
    model: CATANet, kind: str, block: int, attention: str, extra: list[tuple[str, str]]
) -> Group:
    qk, v = model.head_dims
    linears = [(f"{attention}.to_{part}", part) for part in "qkv"] + extra
    slices = [ParamSlice(f"{name}.weight", 0, v if part == "v" else qk) for name, part in linears]
    slices.append(ParamSlice(f"{attention}.proj.weight", 1, v))
    units = model.widths[kind][block]
    name = f"blocks.{block}.{kind}"
    gates = (MaskPoint(f"{attention}.proj", -1, v),)
    return Group(name, kind, units, gates, tuple(slices), kind, (block,), len(model.blocks))


def _neurons(model: CATANet, kind: str, block: int, ffn: str) -> Group:
    conv = f"{ffn}.dwconv.depthwise_conv.0"
    rows = (f"{ffn}.fc1.weight", f"{ffn}.fc1.bias", f"{conv}.weight", f"{conv}.bias")
    slices = (*(ParamSlice(name, 0) for name in rows), ParamSlice(f"{ffn}.fc2.weight", 1))
    units = model.widths[kind][block]
    name = f"blocks.{block}.{kind}"
    gates = (MaskPoint(f"{ffn}.fc2", -1),)
    return Group(name, kind, units, gates, slices, kind, (block,), len(model.blocks))
