"""Reading features inside a network while it runs, without changing it."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kdp.errors import KdpError, suggest


class Taps:
    """Collects the outputs of modules that run inside the `with` block.

    `with Taps(model, names) as features: model(x)` leaves `features[name]` for every module that
    ran; of one that ran twice, the last output. The block can be entered again and again. The
    hooks sit on the modules themselves, so they work under wrappers too (several GPUs).

    Args:
        model: the network.
        names: dotted names of its modules.

    Raises:
        KdpError: the network has no such module; names the nearest.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        modules = dict(model.named_modules())
        for name in names:
            if name not in modules or not name:
                raise KdpError(f"there is no module {name!r} to tap; {suggest(name, modules)}")
        self.modules = {name: modules[name] for name in names}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            self._handles.append(module.register_forward_hook(_Keep(name, features)))
        return features

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()


class _Keep:
    """A forward hook that stores what the module returns."""

    def __init__(self, name: str, features: dict[str, Tensor]) -> None:
        self.name, self.features = name, features

    def __call__(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        if not isinstance(output, Tensor):
            raise KdpError(
                f"the module {self.name!r} returns a {type(output).__name__}, which is no feature "
                "to tap; name a module inside it"
            )
        self.features[self.name] = output
