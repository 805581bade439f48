"""Multiply-accumulates (MACs) and parameters of a network, by two named counters.

Papers report what `thop` counts: modules such as convolutions and linear layers. Matrix products
inside attention and token routing are not modules; the other counter includes them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdp.errors import KdpError
from kdp.models import build_on_meta
from kdp.models.attention import true_widths
from kdp.types import Arch

COUNTER = "torch FlopCounterMode / 2, math attention, true head widths"
"""Description of how `count_macs` counts."""


def count_macs(model: nn.Module, example: Tensor) -> int:
    """MACs of one forward pass, the products of attention and routing included.

    The math kernel is forced because the counter sees nothing of fused attention on a CPU; head
    widths are unpadded because padding is an implementation detail, not part of the network.

    Args:
        model: on any device, "meta" included; training modes are restored.
        example: the input, on the same device.
    """
    return _count_by_module(model, example)[""]


def count_macs_of(arch: Arch, example: Tensor) -> int:
    """`count_macs` of an architecture on the meta device, without weights or computation.

    Raises:
        KdpError: unknown network, or arguments that it does not accept.
    """
    return macs_by_module(arch, example)[""]


def macs_by_module(arch: Arch, example: Tensor) -> dict[str, int]:
    """MACs of the modules of an architecture, as `count_macs` counts them.

    Returns:
        Dotted name -> MACs, submodules included; "" is the whole network. Modules that are not
        called, such as lists, and those without MACs are absent.

    Raises:
        KdpError: unknown network, or arguments that it does not accept.
    """
    if arch.source is not None:  # the user's code, which may have changed
        return _count_by_module(build_on_meta(arch), example.to("meta"))
    key = (repr(arch), tuple(example.shape), example.dtype)
    if key not in _counted:
        _counted[key] = _count_by_module(build_on_meta(arch), example.to("meta"))
    return _counted[key]


# A search asks for the same widths again and again, and a forward pass on the meta device takes up
# to a second, since its kernels are Python.
_counted: dict[tuple[str, tuple[int, ...], torch.dtype], dict[str, int]] = {}


def _count_by_module(model: nn.Module, example: Tensor) -> dict[str, int]:
    counter = FlopCounterMode(display=False)
    # The counter fails on a module whose output is a view of a parameter that requires gradients.
    detached = {name: parameter.detach() for name, parameter in model.named_parameters()}
    with eval_mode(model), true_widths(), sdpa_kernel([SDPBackend.MATH]), counter:
        functional_call(model, detached, (example,))
    flops = {name: sum(count.values()) for name, count in counter.get_flop_counts().items()}
    root = f"{type(model).__name__}."
    modules = {name.removeprefix(root): n // 2 for name, n in flops.items() if root in name}
    return {**modules, "": int(counter.get_total_flops()) // 2}


def count_module_macs(model: nn.Module, example: Tensor) -> tuple[int, str]:
    """MACs of modules alone, and the program that counted: `(macs, "thop 0.1.1-...")`.

    Args:
        model: on any device, "meta" included; a copy of it is counted.
        example: the input, on the same device.
    """
    import thop

    duplicate = copy.deepcopy(model)  # thop leaves buffers and hooks behind when a forward fails
    with true_widths():
        macs, _ = thop.profile(duplicate, (example,), verbose=False)
    return int(macs), thop_version()


@cache
def thop_version() -> str:
    """Distribution and version of the installed module `thop`.

    Forks install the same module and count attention too, so a count must name its program.
    """
    import thop

    for name in sorted(metadata.packages_distributions().get("thop", ())):
        version = metadata.version(name)
        if version.startswith(thop.__version__):
            return f"{name} {version}"
    return f"thop {thop.__version__}"


def run_checked(model: nn.Module, example: Tensor) -> Tensor:
    """Run a network in evaluation mode.

    Raises:
        KdpError: the network does not accept an input of this size.
    """
    try:
        with eval_mode(model):
            return model(example)
    except (RuntimeError, ArithmeticError) as error:
        shape = "x".join(str(side) for side in example.shape[2:])
        raise KdpError(f"this network does not accept an input of {shape}: {error}") from error


def parameters(model: nn.Module) -> tuple[int, int]:
    """How many parameters there are, and how many of them are not zero."""
    nonzero = sum(int(parameter.detach().count_nonzero()) for parameter in model.parameters())
    return count_parameters(model), nonzero


def count_parameters(model: nn.Module) -> int:
    """How many parameters there are; buffers do not count."""
    return sum(parameter.numel() for parameter in model.parameters())


def parameter_bytes(count: int, bits: int = 32) -> int:
    """Bytes that parameters take at a precision, file headers and buffers not counted."""
    return count * bits // 8


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores the mode of every module afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
