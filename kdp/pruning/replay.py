"""Running a network again from a masked place on, with everything before it remembered.

One pass over the calibration batch records what the modules before each gate gave. To mask a
unit, those modules return what they gave, the gate's output is corrected, and only what comes
after is computed. Many units share one batch. Nothing here knows the network: what comes before
a gate is read off the order of the calls.

Shape suffixes: U units scored together, B calibration samples; a batch holds U*B samples, all
samples of the first unit first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.models.taps import Taps
from kdp.pruning.groups import Group, MaskPoint
from kdp.pruning.masks import MaskInput


@dataclass
class _Call:
    """One call of a module: when it began and ended, who called it, what it read and gave."""

    name: str
    caller: _Call | None
    start: int
    end: int = -1
    args: tuple[Any, ...] = ()
    output: Any = None
    order: int = 0


@dataclass
class _Log:
    """The calls of one forward pass, those that matter with their tensors."""

    kept: set[str]
    calls: list[_Call] = field(default_factory=list)
    stack: list[_Call] = field(default_factory=list)
    clock: int = 0


@dataclass(frozen=True)
class Trace:
    """What a forward pass showed: the output and the tapped features, in order of execution."""

    output: Tensor
    features: dict[str, Tensor]


class Replay:
    """A recorded dense pass, from which masked passes go on.

    Args:
        model: in eval mode; each gate is called once in a forward pass.
        groups: whose gates are recorded.
        taps: modules whose outputs are compared.
        inputs: (B, ...) the calibration batch.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[Group], taps: Sequence[str], inputs: Tensor
    ) -> None:
        self.model, self.taps, self.inputs = model, list(taps), inputs
        self.modules = dict(model.named_modules())
        gates = {gate.module for group in groups for gate in group.mask_points}
        self._ancestors = {n for n in self.modules if any(_inside(gate, n) for gate in gates)}
        self._calls = self._record(inputs, gates).calls
        twice = self._record(torch.cat([inputs, inputs]), gates).calls
        self._batched = [
            _is_batched(a.output, b.output) for a, b in zip(self._calls, twice, strict=True)
        ]
        self._gate_calls = {c.name: c for c in self._calls if c.name in gates}
        missing = gates - self._gate_calls.keys()
        if missing or len([c for c in self._calls if c.name in gates]) > len(gates):
            raise KdpError(f"the gates {sorted(missing or gates)} are not called exactly once")
        root = self._calls[0]
        taps_seen = [c for c in self._calls if c.name in set(self.taps)]
        self.dense = Trace(root.output, {c.name: c.output for c in taps_seen})
        self._tap_ends = {c.name: c.end for c in taps_seen}

    def taps_after(self, group: Group) -> list[str]:
        """The taps that a mask in this group can change, in order of execution."""
        first = self._first_gate(group)
        return [name for name, end in self._tap_ends.items() if end > first.start]

    def _first_gate(self, group: Group) -> _Call:
        calls = [self._gate_calls[gate.module] for gate in group.mask_points]
        return min(calls, key=lambda call: call.start)

    @torch.no_grad()
    def without(self, group: Group, units: Sequence[int]) -> Trace:
        """The network without one unit of a group, for several units at once.

        Returns:
            Output and features of the taps that end after the gate begins, each (U*B, ...).
        """
        first, count = self._first_gate(group), len(units)
        with ExitStack() as stack:
            for name, outputs in self._before(first).items():
                stack.enter_context(_returning(self.modules[name], outputs, count))
            self._mask(stack, group, units)
            features = stack.enter_context(Taps(self.model, self.taps_after(group)))
            output = self.model(_repeat(self.inputs, count))
        return Trace(output, features)

    def _mask(self, stack: ExitStack, group: Group, units: Sequence[int]) -> None:
        """Close the gates of each unit for its samples.

        A linear layer that alone reads the units lets their shares be taken off what it gave;
        others compute again.
        """
        gate, module = group.mask_points[0], self.modules[group.mask_points[0].module]
        if len(group.mask_points) == 1 and isinstance(module, nn.Linear) and gate.dim == -1:
            call = self._gate_calls[gate.module]
            shares = [_share(module, call.args[0], unit, gate) for unit in units]
            masked = torch.cat([call.output - share for share in shares])
            stack.enter_context(_returning(module, [(masked, False)], 1))
            return
        masks = [torch.arange(group.units) != unit for unit in units]
        for gate in group.mask_points:
            hook = self.modules[gate.module].register_forward_pre_hook(MaskInput(gate, masks))
            stack.callback(hook.remove)

    def _before(self, gate: _Call) -> dict[str, list[tuple[Any, bool]]]:
        """Outputs of the largest modules that end before the gate begins, in order of calls."""
        above = set()
        caller = gate.caller
        while caller is not None:
            above.add(caller.order)
            caller = caller.caller
        found: dict[str, list[tuple[Any, bool]]] = {}
        for call, batched in zip(self._calls, self._batched, strict=True):
            if call.end < gate.start and call.caller is not None and call.caller.order in above:
                found.setdefault(call.name, []).append((call.output, batched))
        return found

    @torch.no_grad()
    def _record(self, inputs: Tensor, gates: set[str]) -> _Log:
        log = _Log(kept=self._ancestors | gates | set(self.taps))
        with ExitStack() as stack:
            for name, module in self.modules.items():
                enter, leave = self._hooks(name, log)
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            self.model(inputs)
        return log

    def _hooks(self, name: str, log: _Log) -> tuple[Callable[..., None], Callable[..., None]]:
        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            caller = log.stack[-1] if log.stack else None
            log.clock += 1
            call = _Call(name, caller, log.clock, order=len(log.calls))
            log.calls.append(call)
            log.stack.append(call)

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            call = log.stack.pop()
            log.clock += 1
            call.end = log.clock
            called_by_ancestor = call.caller is not None and call.caller.name in self._ancestors
            if called_by_ancestor or name in log.kept:
                call.args, call.output = args, output

        return enter, leave


def _inside(name: str, ancestor: str) -> bool:
    return ancestor == "" or name.startswith(f"{ancestor}.")


def _is_batched(once: Any, twice: Any) -> bool:
    """Whether an output grows with the batch; the first tensor of a tuple speaks for all."""
    if isinstance(once, tuple | list):
        return bool(once) and _is_batched(once[0], twice[0])
    return isinstance(once, Tensor) and once.shape != twice.shape


def _repeat(value: Any, count: int) -> Any:
    if isinstance(value, Tensor):
        return value.repeat(count, *[1] * (value.ndim - 1))
    return type(value)(_repeat(item, count) for item in value)


@contextmanager
def _returning(module: nn.Module, outputs: list[tuple[Any, bool]], count: int) -> Iterator[None]:
    """Let the first calls of a module return these outputs instead of computing."""
    waiting = list(reversed(outputs))
    compute = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not waiting:
            return compute(*args, **kwargs)
        output, batched = waiting.pop()
        return _repeat(output, count) if batched else output

    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward


def _share(linear: nn.Linear, inputs: Tensor, unit: int, gate: MaskPoint) -> Tensor:
    """What one unit adds to the output of a linear map."""
    first = gate.start + unit * gate.width
    entries = slice(first, first + gate.width)
    return nn.functional.linear(inputs[..., entries], linear.weight[:, entries])
