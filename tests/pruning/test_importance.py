"""Importance criteria against their formulas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kdp.errors import KdpError
from kdp.pruning.importance import CRITERIA, ScoringContext, combine_scores, make_scorer
from kdp.pruning.importance.optin import combine_optin, manifold_distance, normalized_rows
from kdp.pruning.replay import Replay
from tests.pruning.helpers import gram_distance, traced_without


def test_manifold_distance_matches_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 5, 4, 3, generator=generator).double() for _ in range(2))
    distance = manifold_distance(normalized_rows(student, 1), normalized_rows(teacher, 1))
    torch.testing.assert_close(distance, gram_distance(student, teacher)[None])


def test_manifold_distance_matches_golden_values(shared: Path) -> None:
    golden = torch.load(shared / "golden" / "optin_losses.pt", weights_only=True)
    student, teacher = (
        normalized_rows(golden[f"{who}_tokens"], 1) for who in ("student", "teacher")
    )
    distance = manifold_distance(student, teacher)
    torch.testing.assert_close(distance, -golden["manifold_mean"][None])
    rows = student.shape[1]
    torch.testing.assert_close(distance * rows**2, -golden["manifold_sum"][None])


def test_optin_matches_one_full_pass_per_unit(context: ScoringContext) -> None:
    with torch.no_grad():
        score = make_scorer("optin", context, {})
        replay = Replay(
            context.model, context.groups, context.task.taps(context.model), context.batch["lr"]
        )
        for group in context.groups:
            measured = score(group)
            taps = replay.taps_after(group)
            for unit in range(group.units):
                features, output = traced_without(context, group, unit)
                expected = [
                    gram_distance(features[name], replay.dense.features[name])
                    if name in taps
                    else torch.zeros(()).double()
                    for name in replay.dense.features
                ]
                expected.append((output - replay.dense.output).square().mean())
                torch.testing.assert_close(measured[unit], torch.stack(expected))


def test_optin_scores_do_not_depend_on_the_order_of_groups(context: ScoringContext) -> None:
    scores = []
    for groups in (context.groups, list(reversed(context.groups))):
        score = make_scorer("optin", context, {})
        scores.append(combine_scores("optin", {g.name: score(g) for g in groups}, {}))
    # Not bit for bit: the factor of the output distance is a mean over all units, which are added
    # up in the order of the groups. In float64 that moves a score by some 1e-16 of itself.
    for name in scores[0]:
        torch.testing.assert_close(scores[0][name], scores[1][name], rtol=1e-10, atol=0)


def test_output_share_scales_the_output_distance() -> None:
    parts = {"a": torch.tensor([[1.0, 10.0], [3.0, 30.0]]).double()}
    assert combine_optin(parts, output_share=0.0)["a"].tolist() == [1.0, 3.0]
    assert combine_optin(parts, output_share=1.0)["a"].tolist() == [2.0, 6.0]


def test_magnitude_is_the_norm_of_all_weights_of_a_unit(context: ScoringContext) -> None:
    group = next(g for g in context.groups if g.name == "blocks.0.tab_neurons")
    for p, norm in ((1, lambda w: w.abs().sum()), (2, lambda w: w.square().sum())):
        scores = make_scorer("magnitude", context, {"p": p})(group)[:, 0]
        ffn = context.model.get_submodule("blocks.0.0.mlp.fn")
        conv = ffn.dwconv.depthwise_conv[0]
        first = (ffn.fc1.weight[0], ffn.fc1.bias[0], conv.weight[0], conv.bias[0])
        expected = sum(norm(w) for w in (*first, ffn.fc2.weight[:, 0]))
        torch.testing.assert_close(scores[0], expected.detach())


def test_taylor_is_gradient_times_weight(context: ScoringContext) -> None:
    model, batch = context.model, context.batch
    group = next(g for g in context.groups if g.name == "blocks.1.lrsa_heads")
    scores = make_scorer("taylor", context, {})(group)[:, 0]
    context.task.loss(model(batch["lr"]), batch).backward()
    fn = model.get_submodule("blocks.1.1.layer.0.fn")
    products = [(p.weight * p.weight.grad).abs() for p in (fn.to_q, fn.to_k, fn.to_v)]
    expected = products[0][:3].sum() + products[1][:3].sum() + products[2][:4].sum()
    expected += (fn.proj.weight * fn.proj.weight.grad).abs()[:, :4].sum()
    torch.testing.assert_close(scores[0], expected.detach())


def test_random_depends_on_the_seed_alone(context: ScoringContext) -> None:
    def scores(seed: int) -> Tensor:
        other = ScoringContext(context.model, context.groups, context.task, context.batch, seed)
        return torch.cat([make_scorer("random", other, {})(g) for g in context.groups])

    assert torch.equal(scores(1), scores(1))
    assert not torch.equal(scores(1), scores(2))


def test_every_criterion_scores_every_unit(context: ScoringContext) -> None:
    for name in CRITERIA:
        score = make_scorer(name, context, {})
        scores = combine_scores(name, {g.name: score(g) for g in context.groups}, {})
        assert {n: len(s) for n, s in scores.items()} == {g.name: g.units for g in context.groups}
        assert all(torch.isfinite(s).all() and (s >= 0).all() for s in scores.values())


def test_unknown_criteria_and_options_are_rejected_by_name(context: ScoringContext) -> None:
    with pytest.raises(KdpError, match="optin, magnitude, taylor, random"):
        make_scorer("hessian", context, {})
    with pytest.raises(KdpError, match="power"):
        make_scorer("magnitude", context, {"power": 2})
    with pytest.raises(KdpError, match=r"prune\.options\.p: Input should be a valid number"):
        make_scorer("magnitude", context, {"p": "two"})
