"""Replay against full masked passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdp.pruning.importance import ScoringContext
from kdp.pruning.replay import Replay
from tests.pruning.helpers import traced_without


def test_replay_gives_the_output_of_a_full_masked_pass(context: ScoringContext) -> None:
    replay = Replay(
        context.model, context.groups, context.task.taps(context.model), context.batch["lr"]
    )
    samples = len(context.batch["lr"])
    for group in context.groups:
        units = list(range(group.units))
        trace = replay.without(group, units)
        for i, unit in enumerate(units):
            features, output = traced_without(context, group, unit)
            part = slice(i * samples, (i + 1) * samples)
            torch.testing.assert_close(trace.output[part], output)
            for name in trace.features:
                torch.testing.assert_close(trace.features[name][part], features[name])


def test_replay_leaves_the_network_unchanged(context: ScoringContext) -> None:
    with torch.no_grad():
        before = context.model(context.batch["lr"])
        replay = Replay(context.model, context.groups, [], context.batch["lr"])
        replay.without(context.groups[0], [0])
        torch.testing.assert_close(context.model(context.batch["lr"]), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in context.model.modules())


def test_replay_computes_only_what_follows_the_mask(context: ScoringContext) -> None:
    taps = context.task.taps(context.model)
    replay = Replay(context.model, context.groups, taps, context.batch["lr"])
    group = next(g for g in context.groups if g.name == "blocks.1.lrsa_neurons")
    calls: list[str] = []
    convs = {n: m for n, m in context.model.named_modules() if isinstance(m, nn.Conv2d)}
    original = nn.Conv2d._conv_forward

    def counted(self: nn.Conv2d, *args: Any) -> Tensor:
        calls.extend(name for name, module in convs.items() if module is self)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "_conv_forward", counted)
        replay.without(group, [0])
    assert calls == ["mid_convs.1", "upconv", "last_conv"]
