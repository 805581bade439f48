"""How a family's networks are exported: `kdp.stages.export` writes what this describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
class OutputSplit:
    """A part of an output that has a scale of its own and is compared on its own.

    Attributes:
        name: for messages, in the plural.
        length: along axis 1.
        scale: what differences are relative to; None for the largest value of the part, which
            depends on the input.
    """

    name: str
    length: int
    scale: float | None = None


def _no_properties(shape: Sequence[int]) -> Mapping[str, str]:
    return {}


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
        names_output_axes: whether axes of any length have their names in the output too.
        output_splits: parts of the output, in order; () for one part.
        classes: names of the classes, () where there are none; stored in the file.
        properties: shape of the input -> metadata beside kdp's, for other programs.
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
    names_output_axes: bool = True
    output_splits: tuple[OutputSplit, ...] = ()
    classes: tuple[str, ...] = ()
    properties: Callable[[Sequence[int]], Mapping[str, str]] = _no_properties
    formats: Mapping[str, ExportFormat] = field(default_factory=dict)
