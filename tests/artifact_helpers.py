"""Networks and contents of files for tests of artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdp.models import build
from kdp.types import Arch
from tests.conftest import TINY

ARCH = Arch("catanet", TINY)

EMPTY_ARTIFACT: dict[str, Any] = {
    "format": "kdp",
    "version": 2,
    "arch": None,
    "params": {},
    "record": {},
}
"""The keys of every artifact."""


def catanet(**args: Any) -> nn.Module:
    torch.manual_seed(0)
    model = build("catanet", **args)
    with torch.no_grad():
        model(torch.rand(1, 3, 12, 12))
    return model.eval()


class RunsCode:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)
