"""Recording which modules a forward pass calls, in what order, and what they return."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Call:
    """One call of a module.

    Attributes:
        name: of the module.
        caller: the call from within which it was made; None for the network itself.
        start, end: clock ticks; the clock advances at every begin and every end of a call.
        args, output: inputs and output, if they are stored (see `record_calls`).
        index: position among all calls of the pass.
    """

    name: str
    caller: Call | None
    start: int
    end: int = -1
    args: tuple[Any, ...] = ()
    output: Any = None
    index: int = 0


@torch.no_grad()
def record_calls(
    model: nn.Module, inputs: Tensor, modules: set[str], parents: set[str]
) -> list[Call]:
    """Run a network and list all calls of its modules, in the order in which they begin.

    Storing every tensor would hold the whole pass in memory.

    Args:
        model: the network.
        inputs: (B, ...).
        modules: names of the modules whose calls keep their tensors.
        parents: names of the modules whose direct calls of other modules keep theirs.
    """
    log = _CallLog(modules, parents)
    with ExitStack() as stack:
        for name, module in model.named_modules():
            enter, leave = log.hooks(name)
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        model(inputs)
    return log.calls


@dataclass
class _CallLog:
    """The calls of a forward pass that is running.

    Attributes:
        modules, parents: see `record_calls`.
        calls: in the order in which they began.
        running: the calls that have not ended, outermost first.
        clock: ticks so far.
    """

    modules: set[str]
    parents: set[str]
    calls: list[Call] = field(default_factory=list)
    running: list[Call] = field(default_factory=list)
    clock: int = 0

    def hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        """Hooks before and after a module's forward."""

        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            # One clock for begins and ends: `a.end < b.start` then says that a is finished before b
            # begins, and nested calls lie between the two ticks of their caller.
            self.clock += 1
            caller = self.running[-1] if self.running else None
            call = Call(name, caller, self.clock, index=len(self.calls))
            self.calls.append(call)
            self.running.append(call)

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.clock += 1
            call = self.running.pop()
            call.end = self.clock
            called_by_parent = call.caller is not None and call.caller.name in self.parents
            if called_by_parent or name in self.modules:
                call.args, call.output = args, output

        return enter, leave
