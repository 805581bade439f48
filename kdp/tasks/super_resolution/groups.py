"""The prunable groups of CATANet: heads and hidden neurons of every TAB and LRSA."""

from __future__ import annotations

from torch import nn

from kdp.models.catanet import CATANet
from kdp.pruning.groups import Group, MaskPoint, ParamSlice


def catanet_groups(model: nn.Module) -> list[Group]:
    """Four groups per block in the order of execution, without those that are empty already.

    Raises:
        TypeError: another network.
    """
    if not isinstance(model, CATANet):
        raise TypeError(f"expected a CATANet, got {type(model).__name__}")
    groups: list[Group] = []
    for i in range(len(model.blocks)):
        tab, lrsa = f"blocks.{i}.0", f"blocks.{i}.1"
        # The heads of IASA and IRCA are one set: IRCA's keys and values belong to the same heads.
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
    """Heads: rows of the query, key and value projections, columns of the output projection."""
    qk, v = model.head_dims
    linears = [(f"{attention}.to_{part}", part) for part in "qkv"] + extra
    slices = [ParamSlice(f"{name}.weight", 0, v if part == "v" else qk) for name, part in linears]
    slices.append(ParamSlice(f"{attention}.proj.weight", 1, v))
    units = model.widths[kind][block]
    name = f"blocks.{block}.{kind}"
    gates = (MaskPoint(f"{attention}.proj", -1, v),)
    return Group(name, kind, units, gates, tuple(slices), kind, (block,), len(model.blocks))


def _neurons(model: CATANet, kind: str, block: int, ffn: str) -> Group:
    """Hidden neurons: rows of fc1, channels of the depthwise convolution, columns of fc2.

    The mask is applied at the input of fc2, behind the convolution, where removal is exact: a
    channel that is zero before a convolution with a bias is not zero after it.
    """
    conv = f"{ffn}.dwconv.depthwise_conv.0"
    rows = (f"{ffn}.fc1.weight", f"{ffn}.fc1.bias", f"{conv}.weight", f"{conv}.bias")
    slices = (*(ParamSlice(name, 0) for name in rows), ParamSlice(f"{ffn}.fc2.weight", 1))
    units = model.widths[kind][block]
    name = f"blocks.{block}.{kind}"
    gates = (MaskPoint(f"{ffn}.fc2", -1),)
    return Group(name, kind, units, gates, slices, kind, (block,), len(model.blocks))
