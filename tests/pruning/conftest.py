"""A small CATANet with its task and a calibration batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdp.config import Config
from kdp.models import build
from kdp.pruning.importance import ScoringContext
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.types import Arch
from tests.conftest import TINY

ARCH = Arch("catanet", TINY)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    network = build("catanet", **TINY).double()
    network.train()(torch.rand(2, 3, 20, 20).double())  # gives the token centres a value
    return network.eval()


@pytest.fixture
def task() -> Task:
    return task_for(ARCH, Config.model_validate({"output": {"name": "test"}}))


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {"lr": torch.rand(3, 3, 14, 12).double(), "hr": torch.rand(3, 3, 28, 24).double()}


@pytest.fixture
def context(model: nn.Module, task: Task, batch: dict[str, Tensor]) -> ScoringContext:
    return ScoringContext(model, task.groups(model), task, batch, seed=0)
