"""A training step that cannot be taken names its cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from torch.utils.data import Dataset

from kdp.errors import KdpError
from kdp.training.loop import fit
from tests.training.helpers import Numbers, settings, toy_job

NAN, INF = float("nan"), float("inf")


def test_a_batch_of_one_names_the_batch_size(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match="batch_size=1 leaves a BatchNorm one value per channel"):
        fit(toy_job(tmp_path, settings=settings(batch_size=1)))


class _Spoilt(Numbers):
    """Points of which the fourth has a value that is not finite."""

    entry, value = "y", NAN

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        sample = super().__getitem__(number)
        return {**sample, self.entry: sample[self.entry] + (self.value if number == 3 else 0)}


@pytest.mark.parametrize(("entry", "value"), [("y", NAN), ("y", INF), ("x", NAN)])
def test_samples_that_are_not_finite_are_to_blame(tmp_path: Path, entry: str, value: float) -> None:
    data: type[Dataset[Any]] = type("Spoilt", (_Spoilt,), {"entry": entry, "value": value})
    with pytest.raises(KdpError, match=rf"samples of step 1 hold NaN or infinity \({entry}\)"):
        fit(toy_job(tmp_path, data=data))


@pytest.mark.parametrize("part", ["task", "logits", "fakd"])
def test_the_part_of_the_loss_is_named(tmp_path: Path, part: str) -> None:
    def objective(model: nn.Module, batch: dict[str, Tensor], step: int) -> Any:
        loss = model(batch["x"]).mean()
        return loss * (NAN if step == 2 else 1), {part: loss * NAN, "other": loss}

    with pytest.raises(KdpError, match=rf"nan at step 2 \({part}\): lower the learning rate"):
        fit(toy_job(tmp_path, objective=objective))


def test_the_learning_rate_is_not_to_blame_before_the_first_update(tmp_path: Path) -> None:
    def objective(model: nn.Module, batch: dict[str, Tensor], step: int) -> Any:
        return model(batch["x"]).mean() * NAN, {}

    with pytest.raises(KdpError, match="nan at step 0: check the weights"):
        fit(toy_job(tmp_path, objective=objective))
