"""Refitting one layer from the sums of its inputs and targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdp.pruning.recovery.moments import Moments, blend, refit
from kdp.pruning.recovery.readers import Affine, Reader, affine


@dataclass(frozen=True)
class LayerFit:
    """What recovery did to one layer.

    Attributes:
        name: of the layer.
        before, after: its squared error on held-out samples, relative to its targets.
        share: of the refitted weights in 0..1; 0 leaves the layer as it was.
    """

    name: str
    before: float
    after: float
    share: float


def refit_layer(
    model: nn.Module,
    reader: Reader,
    fit: Moments,
    held_out: Moments,
    ridge: float,
    norm: str | None,
) -> LayerFit:
    """Refit the kept weights of a layer, in place.

    A convolution without a bias in front of a normalization gets its bias through the running mean.

    Args:
        model: the pruned network.
        reader: the layer, with its kept rows and columns.
        fit, held_out: sums that the weights are fitted to, and that choose their share.
        ridge: strength with which weights are drawn towards the present ones.
        norm: name of the normalization behind the layer, if there is one.
    """
    layer = affine(model, reader.name)
    behind = None if norm is None else model.get_submodule(norm)
    before = _kept(layer, reader)
    wanted = refit(fit, before, ridge, layer.bias is not None or behind is not None)
    share = blend(held_out, before, wanted)
    after = before + share * (wanted - before)
    scale = max(float(held_out.square.sum()), torch.finfo(torch.float64).tiny)
    errors = [max(held_out.error(weight), 0.0) / scale for weight in (before, after)]
    if share:
        _write(layer, behind, reader, after)
    return LayerFit(reader.name, errors[0], errors[1], share)


def _kept(layer: Affine, reader: Reader) -> Tensor:
    """The kept weights as a matrix with the bias as its last column, (O, I + 1), float64."""
    matrix = layer.weight.detach().flatten(1).cpu().double()[reader.outputs][:, reader.inputs]
    bias = matrix.new_zeros(len(matrix))
    if layer.bias is not None:
        bias = layer.bias.detach().cpu().double()[reader.outputs]
    return torch.cat([matrix, bias[:, None]], 1)


def _write(layer: Affine, norm: nn.Module | None, reader: Reader, weight: Tensor) -> None:
    weight = weight.to(layer.weight.device, layer.weight.dtype)
    rows, columns = reader.outputs.to(weight.device), reader.inputs.to(weight.device)
    matrix = layer.weight.flatten(1)
    matrix[rows[:, None], columns] = weight[:, :-1]
    layer.weight.copy_(matrix.view_as(layer.weight))
    if layer.bias is not None:
        layer.bias[rows] = weight[:, -1]
    elif norm is not None:
        assert isinstance(norm.running_mean, Tensor)
        norm.running_mean[rows] -= weight[:, -1]
