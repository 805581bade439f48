"""Reading features inside a network while it runs, without changing it."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kdp.errors import KdpError, suggest


class Taps:
    """Collects the outputs of modules that run inside a `with` block.

    After `with Taps(model, names) as features: model(x)`, `features[name]` is the output of every
    module that ran (the last one, if it ran several times). The block can be entered repeatedly.
    The hooks are on the modules themselves, so they also work under a distributed wrapper.

    Args:
        model: the network.
        names: dotted names of its modules.

    Raises:
        KdpError: the network has no such module; the message suggests the nearest.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        modules = dict(model.named_modules())
        for name in names:
            if name not in modules or not name:
                raise KdpError(f"cannot tap {name!r}: no such module; {suggest(name, modules)}")
        self.modules = {name: modules[name] for name in names}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            self._handles.append(module.register_forward_hook(_StoreOutput(name, features)))
        return features

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()


class _StoreOutput:
    """A forward hook that stores what the module returns."""

    def __init__(self, name: str, features: dict[str, Tensor]) -> None:
        self.name, self.features = name, features

    def __call__(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        if not isinstance(output, Tensor):
            raise KdpError(
                f"cannot tap {self.name!r}: it returns a {type(output).__name__} instead of a "
                "tensor; name a module inside it"
            )
        self.features[self.name] = output
