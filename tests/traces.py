"""Exports that trace a network once for all precisions, which are conversions of that graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor, nn

from kdp.stages.export import onnx as onnx_stage
from kdp.tasks.export_spec import ExportSpec


@contextmanager
def tracing_once() -> Iterator[None]:
    """Inside, `kdp.stages.export` takes the graph of equal networks and inputs from a cache."""
    graphs: dict[bytes, Any] = {}
    trace = onnx_stage.onnx_proto

    def cached(model: nn.Module, example: Tensor, spec: ExportSpec) -> Any:
        weights = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
        key = repr((example.shape, spec.dynamic_axes)).encode() + weights
        if key not in graphs:
            graphs[key] = trace(model, example, spec)
        return copy.deepcopy(graphs[key])  # a conversion changes it

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_stage, "onnx_proto", cached)
        yield
