"""One or several frozen teachers, averaged by their weights."""

from __future__ import annotations

import pytest
import torch

from kdp.distillation.teacher import Teacher, TeacherEnsemble
from kdp.errors import KdpError
from kdp.models import build
from tests.conftest import TINY
from tests.distillation.helpers import BATCH, tiny_ensemble


def test_the_output_of_several_teachers_is_their_mean() -> None:
    both = tiny_ensemble(2)
    single = [teacher(BATCH["lr"])[0] for teacher in both.teachers]
    torch.testing.assert_close(both(BATCH).output, (single[0] + single[1]) / 2)


def test_shares_weight_the_outputs_of_the_teachers() -> None:
    both = tiny_ensemble(2, shares=[3, 1])
    single = [teacher(BATCH["lr"])[0] for teacher in both.teachers]
    torch.testing.assert_close(both(BATCH).output, 0.75 * single[0] + 0.25 * single[1])


def test_teachers_with_different_output_shapes_are_rejected() -> None:
    torch.manual_seed(0)
    models = [build("catanet", **{**TINY, "upscale": scale}) for scale in (2, 3)]
    source = TeacherEnsemble(models, [], lambda batch: batch["lr"])
    with pytest.raises(KdpError, match="cannot average"):
        source(BATCH)


def test_a_teacher_is_frozen() -> None:
    model = build("catanet", **TINY).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    image = torch.rand(1, 3, 12, 12, requires_grad=True)
    output, features = Teacher(model, ["mid_convs.0"])(image)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not output.requires_grad
    assert not features["mid_convs.0"].requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
