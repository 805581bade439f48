"""How a family's networks are exported: `kdp.stages.export` writes what this describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from kdp.types import Arch

Runner = Callable[[Tensor], Tensor]
"""Runs an exported network."""


class Writer(Protocol):
    """Writes a network in one format."""

    def __call__(
        self,
        model: nn.Module,
        example: Tensor,
        spec: ExportSpec,
        description: dict[str, Any],
        precision: str,
    ) -> tuple[bytes, Runner]:
        """The content of the file, and a function that runs it.

        Args:
            model: in eval mode.
            example: an input.
            spec: of the network.
            description: plain values, stored in the file where the format has room for metadata.
            precision: one of `ExportFormat.precisions`.

        Raises:
            KdpError: this network cannot be written.
        """


@dataclass(frozen=True)
class ExportFormat:
    """A file format.

    Attributes:
        title: for messages.
        suffix: of its files, with the dot.
        write: writes a network.
        precisions: those it can be written in.
        decoded: whether the file's outputs are decoded, for programs without kdp.
        any_suffix: whether files of the format may end in something else.
    """

    title: str
    suffix: str
    write: Writer
    precisions: tuple[str, ...] = ("fp32",)
    decoded: bool = True
    any_suffix: bool = False


@dataclass(frozen=True)
class ExportSpec:
    """The input and output of an exported network.

    Attributes:
        arch: the network that is exported.
        example: (height, width) -> an input of one sample, on the CPU.
        size: (height, width) of the input that is traced where none is asked for.
        input_spec, output_spec: what they hold, in words; stored in the file.
        input_name, output_name: of the tensors.
        dynamic_axes: axes of the input (batch 0, height 2, width 3) that take any length.
        output_splits: lengths of the parts along axis 1 of the output that have a scale of their
            own and are compared separately; () for one part.
        classes: names of the classes, () where there are none; stored in the file.
        formats: formats of this family alone, by name, beside those of every family.
    """

    arch: Arch
    example: Callable[[tuple[int, int]], Tensor]
    size: tuple[int, int]
    input_spec: str
    output_spec: str
    input_name: str = "input"
    output_name: str = "output"
    dynamic_axes: tuple[int, ...] = (0,)
    output_splits: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    formats: Mapping[str, ExportFormat] = field(default_factory=dict)
