"""What a network costs once it is deployed: parameters, MACs, bytes, and what pruning removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdp.errors import KdpError, first_line
from kdp.measure.complexity import COUNTER, count_macs_of, count_parameters, parameter_bytes
from kdp.models import build_on_meta, fused_arch
from kdp.tasks.base import ExampleTask
from kdp.types import Arch

PRECISIONS = {"fp32": 32, "fp16": 16, "int8": 8}
"""Bits of a parameter."""


@dataclass(frozen=True)
class Costs:
    """Of a network without removed units, fused where it can be; see `kdp.stages.deployed`.

    Attributes:
        parameters: how many there are.
        macs: of one input.
        input_size: (height, width) of that input.
        unpruned: parameters before anything was removed.
    """

    parameters: int
    macs: int
    input_size: Sequence[int]
    unpruned: int

    @property
    def sparsity(self) -> float:
        """Share of the parameters that pruning removed."""
        return 1 - self.parameters / self.unpruned

    @property
    def bytes(self) -> dict[str, int]:
        """Size of the parameters by precision."""
        return {name: parameter_bytes(self.parameters, bits) for name, bits in PRECISIONS.items()}

    @property
    def numbers(self) -> dict[str, float]:
        """For trackers, which show numbers by name."""
        sizes = {f"bytes_{name}": size for name, size in self.bytes.items()}
        return {
            "parameters": self.parameters,
            "macs": self.macs,
            "sparsity": self.sparsity,
            **sizes,
        }

    def plain(self) -> dict[str, Any]:
        """Plain values, for files."""
        macs = {"count": self.macs, "counter": COUNTER, "input_size": list(self.input_size)}
        return {
            "parameters": self.parameters,
            "macs": macs,
            "bytes": self.bytes,
            "sparsity": self.sparsity,
            "unpruned_parameters": self.unpruned,
        }


def costs_of(arch: Arch, task: ExampleTask, unpruned: int | None = None) -> Costs:
    """Count what a network costs, without its weights.

    Args:
        arch: of the network without removed units, fused or not.
        task: knows the size of its input.
        unpruned: deployed parameters before anything was removed; those of `arch` if None.

    Raises:
        KdpError: it cannot be measured.
    """
    try:
        count = deployed_parameters(arch)
        macs = count_macs_of(fused_arch(arch), task.example(task.input_size))
    except Exception as error:  # whatever stops the count, there is no number to trust
        reason = first_line(error)
        raise KdpError(f"the complexity of {arch.name} cannot be measured: {reason}") from error
    return Costs(count, macs, task.input_size, unpruned or count)


def deployed_parameters(arch: Arch) -> int:
    """Parameters of a network once it is fused."""
    return count_parameters(build_on_meta(fused_arch(arch)))
