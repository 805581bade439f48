"""Where the outputs of layers are added to a residual stream, found by watching a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_ADDITIONS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
Layout = Callable[[Tensor], Tensor]


class Enough(Exception):
    """Ends a forward pass of which everything needed is known."""


@dataclass
class Sighting:
    """What a forward pass showed of one layer.

    Attributes:
        inputs, output: of the layer.
        norm: the normalization directly behind it, if there is one.
        terms: what is added to the output (behind the normalization, if there is one), each in the
            shape of the output.
    """

    inputs: Tensor
    output: Tensor
    norm: nn.Module | None = None
    terms: list[Tensor] = field(default_factory=list)

    def stream(self) -> Tensor:
        """The sum of the terms."""
        return torch.stack(self.terms).sum(0)


@dataclass
class _Trail:
    """A tensor that holds a layer's output, possibly with terms added.

    Attributes:
        number: position of the layer among those that are watched.
        base: the tensor.
        layout: brings a value in the shape of `base` into the shape of the layer's output.
    """

    number: int
    base: Tensor
    layout: Layout


def _keep_on(name: str, sighting: Sighting) -> None:
    """Watch the whole pass."""


class StreamWatch(TorchDispatchMode):
    """Watches layers during one forward pass inside a `with` block.

    A term counts as a stream if it does not depend on the layer itself or on a layer behind it:
    what is computed later cannot be repaired here.

    Args:
        model: the network, in eval mode.
        names: of the layers, in order of execution; each runs once.
        on_sight: called after every sighting of a layer's input, output or term, with its name.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        on_sight: Callable[[str, Sighting], None] = _keep_on,
    ) -> None:
        super().__init__()
        self.model, self.names, self.on_sight = model, list(names), on_sight
        self.sightings: dict[str, Sighting] = {}
        self._trails: dict[int, _Trail] = {}
        self._depends: dict[int, int] = {}
        self._alive: list[Tensor] = []
        self._hooks = ExitStack()

    def __enter__(self) -> StreamWatch:
        numbers = {name: number for number, name in enumerate(self.names)}
        for name, module in self.model.named_modules():
            if name in numbers:
                hook = self._layer_hook(name, numbers[name])
            elif isinstance(module, _NORMS):
                hook = self._norm_hook
            else:
                continue
            self._hooks.callback(module.register_forward_hook(hook).remove)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.close()
        self._alive.clear()

    def _layer_hook(self, name: str, number: int) -> Callable[..., None]:
        def watch(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self.sightings[name] = sighting = Sighting(args[0], output)
            self._follow(_Trail(number, output, lambda value: value))
            self.on_sight(name, sighting)

        return watch

    def _norm_hook(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        trail = self._trails.get(_storage(args[0]))
        if trail is None or trail.base is not args[0]:
            return
        sighting = self.sightings[self.names[trail.number]]
        if sighting.output is trail.base:
            sighting.norm = module
            self._follow(_Trail(trail.number, output, trail.layout))

    def _follow(self, trail: _Trail) -> None:
        self._alive.append(trail.base)  # its storage must not be given to another tensor
        self._trails[_storage(trail.base)] = trail
        self._depends[_storage(trail.base)] = trail.number

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        extended = self._extended(func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        depends = max((self._depends.get(_storage(t), -1) for t in _tensors(args)), default=-1)
        for tensor in _tensors([result]):
            self._depends[_storage(tensor)] = depends
        if func._schema.is_mutable:
            self._trails.pop(_storage(args[0]), None)  # it no longer holds the layer's output
        if extended is not None:
            trail, operand = extended
            self._follow(_Trail(trail.number, result, _through(trail, operand)))
            name = self.names[trail.number]
            self.on_sight(name, self.sightings[name])
        return result

    def _extended(self, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """The trail that an addition continues, with its operand, after noting the other one."""
        if func not in _ADDITIONS or kwargs.get("alpha", 1) != 1:
            return None
        left, right = args[:2]
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return None
        pairs = [(self._trails.get(_storage(a)), a, b) for a, b in ((left, right), (right, left))]
        known = [(trail, a, b) for trail, a, b in pairs if trail is not None]
        if not known or left.shape != right.shape:
            return None
        trail, operand, other = max(known, key=lambda item: item[0].number)
        if self._depends.get(_storage(other), -1) >= trail.number:
            return None
        if operand.numel() != trail.base.numel():
            return None
        term = _through(trail, operand)(other)
        self.sightings[self.names[trail.number]].terms.append(term)
        return trail, operand


def _through(trail: _Trail, operand: Tensor) -> Layout:
    """Brings a value in the shape of a view into the shape of the layer's output.

    Args:
        trail: whose base the operand is a view of.
        operand: the view, of all entries of the base.
    """
    base = trail.base
    size, stride, offset = operand.size(), operand.stride(), operand.storage_offset()
    entries = base.untyped_storage().nbytes() // base.element_size()

    def layout(value: Tensor) -> Tensor:
        buffer = value.new_zeros(entries)
        buffer.as_strided(size, stride, offset).copy_(value)
        return trail.layout(
            buffer.as_strided(base.size(), base.stride(), base.storage_offset()).clone()
        )

    return layout


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(values: Any) -> list[Tensor]:
    """All tensors of the arguments of an operator, in lists too."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, list | tuple):
        return [tensor for value in values for tensor in _tensors(value)]
    return []
