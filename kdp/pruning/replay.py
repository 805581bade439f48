"""Masked forward passes that reuse a recorded dense pass, for scoring many units.

A dense pass over the calibration batch records the output of every module. To mask a unit, the
modules that ran before its mask point return their recorded outputs, and only the rest is
computed. Several units share one batch. What comes before a mask point is read off the order of
the calls, so any network of modules works; nothing here knows the architecture.

Shape suffixes: U units scored together, B calibration samples. A batch holds U * B samples, all
samples of the first unit first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdp.errors import KdpError, join_names
from kdp.models.taps import Taps
from kdp.pruning.call_log import Call, record_calls
from kdp.pruning.groups import Group, MaskPoint
from kdp.pruning.masks import MaskInput


@dataclass(frozen=True)
class Trace:
    """The result of a forward pass.

    Attributes:
        output: of the network.
        features: of the taps that ran, in order of execution.
    """

    output: Tensor
    features: dict[str, Tensor]


class Replay:
    """A recorded dense pass from which masked passes continue.

    Args:
        model: in eval mode; the reading module of each mask point runs once per forward pass.
        groups: the groups to mask.
        taps: modules whose features are compared.
        inputs: (B, ...), the calibration batch.

    Attributes:
        dense: output and features of the dense pass.

    Raises:
        KdpError: the module of a mask point does not run exactly once.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[Group], taps: Sequence[str], inputs: Tensor
    ) -> None:
        self.model, self.taps, self.inputs = model, list(taps), inputs
        self.modules = dict(model.named_modules())
        readers = {point.module for group in groups for point in group.mask_points}
        self._ancestors = {n for n in self.modules if any(_inside(r, n) for r in readers)}
        self._calls = self._record(inputs, readers)
        # A second pass over twice the batch tells outputs with a batch dimension, which must be
        # repeated per unit, from those without one (a mask or index table that fits any batch).
        doubled = self._record(torch.cat([inputs, inputs]), readers)
        self._batched = [
            _grows_with_batch(once.output, twice.output)
            for once, twice in zip(self._calls, doubled, strict=True)
        ]
        self._reader_calls = {c.name: c for c in self._calls if c.name in readers}
        missing = readers - self._reader_calls.keys()
        if missing or len([c for c in self._calls if c.name in readers]) > len(readers):
            names = join_names(sorted(missing or readers))
            raise KdpError(f"cannot replay: not every one of {names} runs exactly once per pass")
        root = self._calls[0]
        tap_calls = [c for c in self._calls if c.name in set(self.taps)]
        self.dense = Trace(root.output, {c.name: c.output for c in tap_calls})
        self._tap_ends = {c.name: c.end for c in tap_calls}

    def _record(self, inputs: Tensor, readers: set[str]) -> list[Call]:
        """All calls of a dense pass, with the tensors that masked passes reuse."""
        named = self._ancestors | readers | set(self.taps)
        return record_calls(self.model, inputs, named, self._ancestors)

    def taps_after(self, group: Group) -> list[str]:
        """The taps whose features a mask in this group can change, in order of execution."""
        first = self._first_reader(group)
        # A tap that encloses the reader begins before it but ends after it: its feature changes.
        return [name for name, end in self._tap_ends.items() if end > first.start]

    def _first_reader(self, group: Group) -> Call:
        """The earliest call that reads the group's units."""
        calls = [self._reader_calls[point.module] for point in group.mask_points]
        return min(calls, key=lambda call: call.start)

    @torch.no_grad()
    def without(self, group: Group, units: Sequence[int]) -> Trace:
        """Run the network once for several units, each without that unit alone.

        Returns:
            Output and the features that can change (see `taps_after`), each (U * B, ...).
        """
        first, count = self._first_reader(group), len(units)
        with ExitStack() as stack:
            for name, outputs in self._outputs_before(first).items():
                stack.enter_context(_recorded_outputs(self.modules[name], outputs, count))
            self._mask(stack, group, units)
            features = stack.enter_context(Taps(self.model, self.taps_after(group)))
            output = self.model(_repeat(self.inputs, count))
        return Trace(output, features)

    def _mask(self, stack: ExitStack, group: Group, units: Sequence[int]) -> None:
        """Mask each unit in its own part of the batch, until the stack is closed."""
        point = group.mask_points[0]
        module = self.modules[point.module]
        # A linear map needs no second pass: W (x - x_u) = W x - W x_u, and W x is recorded. W x_u
        # takes only the unit's columns of W, a fraction of the full product.
        if len(group.mask_points) == 1 and isinstance(module, nn.Linear) and point.dim == -1:
            call = self._reader_calls[point.module]
            masked = torch.cat(
                [call.output - _contribution(module, call.args[0], unit, point) for unit in units]
            )
            stack.enter_context(_recorded_outputs(module, [(masked, False)], 1))
            return
        masks = [torch.arange(group.units) != unit for unit in units]
        for point in group.mask_points:
            hook = MaskInput(point, masks)
            handle = self.modules[point.module].register_forward_pre_hook(hook)
            stack.callback(handle.remove)

    def _outputs_before(self, reader: Call) -> dict[str, list[tuple[Any, bool]]]:
        """Recorded outputs of calls that end before the reader begins, by module and in order.

        Only the outermost such calls are needed: those made by the calls that enclose the reader.
        Whatever they call inside does not run, because they return without computing.
        """
        enclosing = set()
        caller = reader.caller
        while caller is not None:
            enclosing.add(caller.index)
            caller = caller.caller
        outputs: dict[str, list[tuple[Any, bool]]] = {}
        for call, batched in zip(self._calls, self._batched, strict=True):
            outermost = call.caller is not None and call.caller.index in enclosing
            if outermost and call.end < reader.start:
                outputs.setdefault(call.name, []).append((call.output, batched))
        return outputs


def _inside(name: str, ancestor: str) -> bool:
    """True if a module lies inside another one; everything lies inside the network, ""."""
    return ancestor == "" or name.startswith(f"{ancestor}.")


def _grows_with_batch(once: Any, twice: Any) -> bool:
    """True if an output has a batch dimension; the first tensor decides for a tuple."""
    if isinstance(once, tuple | list):
        return bool(once) and _grows_with_batch(once[0], twice[0])
    return isinstance(once, Tensor) and once.shape != twice.shape


def _repeat(value: Any, count: int) -> Any:
    """Tensors (B, ...) -> (count * B, ...), inside tuples and lists too."""
    if isinstance(value, Tensor):
        return value.repeat(count, *[1] * (value.ndim - 1))
    return type(value)(_repeat(item, count) for item in value)


@contextmanager
def _recorded_outputs(
    module: nn.Module, outputs: list[tuple[Any, bool]], count: int
) -> Iterator[None]:
    """Let the first calls of a module return recorded outputs; later calls compute.

    Args:
        module: whose `forward` is replaced inside the block.
        outputs: one per call, each with whether it has a batch dimension.
        count: how often a batched output is repeated.
    """
    remaining = list(reversed(outputs))
    compute = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not remaining:
            return compute(*args, **kwargs)
        output, batched = remaining.pop()
        return _repeat(output, count) if batched else output

    # On the instance, so that hooks (taps among them) still run around it; `del` uncovers the
    # method of the class again.
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward


def _contribution(linear: nn.Linear, inputs: Tensor, unit: int, point: MaskPoint) -> Tensor:
    """What one unit adds to the output of a linear layer."""
    first = point.start + unit * point.width
    entries = slice(first, first + point.width)
    return nn.functional.linear(inputs[..., entries], linear.weight[:, entries])
