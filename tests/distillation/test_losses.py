"""Distillation losses against their formulas, and what surrounds them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdp.config import DistillConfig, LossConfig
from kdp.data.pairs import embedded
from kdp.distillation.losses import LOSSES, make_loss
from kdp.distillation.objective import Distiller
from kdp.distillation.schedules import weight_factor
from kdp.distillation.teacher import Teacher, TeacherEnsemble
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.models.taps import Taps
from tests.conftest import ROOT, TINY


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    random = generator(seed)
    return [torch.randn(s, generator=random, dtype=torch.float64) for s in shapes]


def l1_by_hand(a: Tensor, b: Tensor) -> float:
    pairs = list(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    return sum(abs(x - y) for x, y in pairs) / len(pairs)


def affinity_by_hand(student: Tensor, teacher: Tensor) -> float:
    """FAKD's loss of one layer, one pair of positions after another."""

    def unit(feature: Tensor) -> list[list[float]]:
        columns = feature.flatten(1).T.tolist()
        lengths = [math.sqrt(sum(v * v for v in column)) + 1e-8 for column in columns]
        return [[v / n for v in c] for c, n in zip(columns, lengths, strict=True)]

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    differences = []
    for s, t in zip(student, teacher, strict=True):
        s_unit, t_unit = unit(s), unit(t)
        for i in range(len(s_unit)):
            for j in range(len(s_unit)):
                gap = dot(s_unit[i], s_unit[j]) - dot(t_unit[i], t_unit[j])
                differences.append(abs(gap))
    return sum(differences) / len(differences)


def test_feature_loss_is_the_sum_of_mean_absolute_differences() -> None:
    a, b, c, d = features((2, 3, 4, 5), (2, 3, 4, 5), (1, 2, 2, 2), (1, 2, 2, 2))
    loss = make_loss("feature", {})({"one": (a, b), "two": (c, d)}, generator())
    assert float(loss) == pytest.approx(l1_by_hand(a, b) + l1_by_hand(c, d), abs=1e-12)


def test_output_loss_is_the_mean_absolute_difference_of_outputs() -> None:
    a, b = features((2, 3, 4, 4), (2, 3, 4, 4))
    loss = make_loss("output", {})
    assert loss.loss.compares == "output"
    assert float(loss({"output": (a, b)}, generator())) == pytest.approx(l1_by_hand(a, b))


def test_affinity_loss_is_fakd_for_networks_of_other_widths() -> None:
    a, b, c, d = features((2, 3, 3, 4), (2, 5, 3, 4), (2, 2, 2, 2), (2, 2, 2, 2))
    loss = make_loss("fakd", {"sample": None})({"one": (a, b), "two": (c, d)}, generator())
    assert float(loss) == pytest.approx(affinity_by_hand(a, b) + affinity_by_hand(c, d), abs=1e-12)


def attention_transfer_by_hand(student: Tensor, teacher: Tensor, p: float) -> float:
    """The norm over the whole batch of the difference of attention maps, over the batch size."""

    def maps(feature: Tensor) -> list[list[float]]:
        found = []
        for picture in feature.flatten(2).tolist():
            sums = [sum(abs(v) ** p for v in column) for column in zip(*picture, strict=True)]
            norm = math.sqrt(sum(v * v for v in sums)) + 1e-8
            found.append([v / norm for v in sums])
        return found

    pairs = zip(maps(student), maps(teacher), strict=True)
    squares = sum((b - a) ** 2 for s, t in pairs for a, b in zip(s, t, strict=True))
    return math.sqrt(squares) / len(student)


@pytest.mark.parametrize("p", [1, 2])
def test_attention_transfer_is_its_formula_for_networks_of_other_widths(p: int) -> None:
    a, b, c, d = features((2, 3, 3, 4), (2, 5, 3, 4), (2, 2, 2, 2), (2, 2, 2, 2))
    loss = make_loss("attention_transfer", {"p": p})({"one": (a, b), "two": (c, d)}, generator())
    expected = attention_transfer_by_hand(a, b, p) + attention_transfer_by_hand(c, d, p)
    assert float(loss) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logits_loss_is_the_scaled_divergence(temperature: float) -> None:
    student, teacher = features((3, 4), (3, 4))

    def softmax(row: list[float]) -> list[float]:
        powers = [math.exp(v / temperature) for v in row]
        return [v / sum(powers) for v in powers]

    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    each = [
        sum(q * math.log(q / p) for p, q in zip(softmax(s), softmax(t), strict=True))
        for s, t in rows
    ]
    loss = make_loss("logits", {"temperature": temperature})
    found = float(loss({"output": (student, teacher)}, generator()))
    assert found == pytest.approx(temperature**2 * sum(each) / 3, abs=1e-12)


def test_a_sample_of_all_positions_is_the_exact_affinity() -> None:
    a, b = features((2, 3, 4, 4), (2, 3, 4, 4))
    exact, full = (make_loss("fakd", {"sample": n}) for n in (None, 16))
    assert full({"x": (a, b)}, generator()) == exact({"x": (a, b)}, generator())


def test_sampled_affinity_is_unbiased_on_real_features() -> None:
    teacher, _, _ = load_network(ROOT / "weights" / "catanet_teacher_x2.pth")
    crop = embedded(2, validation=True)[0].lr()[60:88, 60:88]
    picture = torch.from_numpy(crop.transpose(2, 0, 1).copy())[None].float() / 255
    with Taps(teacher, ["mid_convs.2", "mid_convs.7"]) as found, torch.no_grad():
        teacher(picture)
    early, late = (feature.double() for feature in found.values())
    pair, sampled = {"x": (early, late)}, make_loss("fakd", {"sample": 48})
    exact = float(make_loss("fakd", {"sample": None})(pair, generator()))
    draws = torch.tensor([float(sampled(pair, generator(seed))) for seed in range(600)])
    assert draws.std() / exact > 0.01, "the draws must differ for their mean to say anything"
    assert float(draws.mean()) == pytest.approx(exact, rel=0.01)


def test_sampled_affinity_takes_under_a_tenth_of_the_memory() -> None:
    student, teacher = torch.randn(1, 40, 64, 64, requires_grad=True), torch.randn(1, 40, 64, 64)

    def saved(options: dict[str, Any]) -> int:
        """Bytes that the loss keeps for its gradient."""
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = make_loss("fakd", options)({"x": (student, teacher)}, generator())
        assert loss.requires_grad
        return sum(sizes.values())

    assert saved({}) < saved({"sample": None}) / 10


@pytest.mark.parametrize("name", LOSSES)
def test_equal_networks_lose_nothing(name: str) -> None:
    (a,) = features((2, 3, 4, 4))
    assert float(make_loss(name, {})({"x": (a, a.clone())}, generator())) == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("output", {}),
        ("feature", {}),
        ("fakd", {"sample": 5}),
        ("fakd", {"sample": None}),
        ("attention_transfer", {}),
        ("logits", {"temperature": 2}),
        ("score_weighted", {}),
    ],
)
def test_gradients_are_those_of_finite_differences(name: str, options: dict[str, Any]) -> None:
    student, teacher = features((1, 3, 3, 3), (1, 3, 3, 3))
    loss = make_loss(name, options)
    assert torch.autograd.gradcheck(
        lambda x: loss({"x": (x, teacher)}, generator()), (student.requires_grad_(),)
    )


def test_half_precision_features_are_compared_in_single_precision() -> None:
    a, b = (f.half() for f in features((1, 3, 4, 4), (1, 3, 4, 4)))
    for name in LOSSES:
        assert make_loss(name, {})({"x": (a, b)}, generator()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("feature", (2, 4, 4, 4)),
        ("output", (2, 3, 8, 8)),
        ("fakd", (2, 3, 4, 5)),
        ("logits", (2, 5, 4, 4)),
        ("attention_transfer", (2, 3, 5, 4)),
        ("score_weighted", (2, 3, 5, 4)),
    ],
)
def test_maps_that_cannot_be_compared_are_named(name: str, other: tuple[int, ...]) -> None:
    a, b = features((2, 3, 4, 4), other)
    with pytest.raises(KdpError, match=r"'blocks.0'.*\(2, 3, 4, 4\)") as caught:
        make_loss(name, {})({"blocks.0": (a, b)}, generator())
    assert str(other) in str(caught.value)


def test_features_without_positions_have_no_affinity() -> None:
    a, b = features((2, 3), (2, 3))
    for name in ("fakd", "attention_transfer"):
        with pytest.raises(KdpError, match="'head': this loss needs a map with positions"):
            make_loss(name, {})({"head": (a, b)}, generator())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("featur", {}, "did you mean 'feature'"),
        ("fakd", {"smaple": 3}, "options.smaple"),
        ("fakd", {"sample": 0}, "options.sample"),
        ("output", {"sample": 3}, "options: none"),
    ],
)
def test_wrong_losses_and_options_are_named(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdpError, match=message):
        make_loss(name, options)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [("constant", (1, 1, 1)), ("linear", (1, 0.75, 0)), ("cosine", (1, 0.853553, 0))],
)
def test_schedules_run_from_one_to_their_end(schedule: str, values: tuple[float, ...]) -> None:
    config = LossConfig.model_validate({"schedule": schedule})
    found = [weight_factor(config, step, 40) for step in (0, 10, 40)]
    assert found == pytest.approx(values, abs=1e-6)


def three_phases(epoch: int) -> float:
    """The lambda of the YOLO11 study, as it is written."""
    if epoch < 40:
        return 2.0 * (1 - epoch / 40)
    return 0.3 * (1 - (epoch - 40) / 60) if epoch < 100 else 0.05


def test_piecewise_is_the_three_phase_lambda_at_every_epoch() -> None:
    config = LossConfig(schedule="piecewise")
    found = [weight_factor(config, epoch, 150) for epoch in range(151)]
    assert found == pytest.approx([three_phases(epoch) for epoch in range(151)], abs=1e-12)
    effective = {epoch: 0.75 * found[epoch] for epoch in (0, 20, 40, 70, 100, 150)}
    published = {0: 1.5, 20: 0.75, 40: 0.225, 70: 0.1125, 100: 0.0375, 150: 0.0375}
    assert effective == pytest.approx(published)


def test_phases_can_be_given() -> None:
    phases = [{"until": 0.5, "start": 4, "end": 2}, {"until": 1, "start": 1, "end": 0}]
    config = LossConfig.model_validate({"schedule": "piecewise", "phases": phases})
    assert [weight_factor(config, step, 8) for step in (0, 2, 4, 6, 8)] == [4, 3, 1, 0.5, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "piecewise", "phases": [{"until": 0.5, "start": 1, "end": 1}]}, "end at 1"),
        ({"phases": [{"until": 1, "start": 1, "end": 1}]}, "belong to the schedule piecewise"),
    ],
)
def test_phases_that_leave_a_gap_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig.model_validate(changes)


def test_taps_read_features_and_change_nothing() -> None:
    torch.manual_seed(0)
    model = build("catanet", **TINY).eval()
    x = torch.rand(1, 3, 12, 12)
    before = model(x)
    with Taps(model, ["mid_convs.0", "blocks.1.0.mlp"]) as found:
        during = model(x)
    after = model(x)
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert {name: tuple(f.shape) for name, f in found.items()} == {
        "mid_convs.0": (1, 8, 12, 12),
        "blocks.1.0.mlp": (1, 8, 12, 12),
    }
    assert not any(module._forward_hooks for module in model.modules())


def test_taps_are_gone_after_a_failed_forward() -> None:
    model = build("catanet", **TINY)
    with pytest.raises(RuntimeError), Taps(model, ["mid_convs.0"]):
        model(torch.rand(1, 5, 12, 12))
    assert not any(module._forward_hooks for module in model.modules())


def test_an_unknown_tap_is_answered_with_the_nearest() -> None:
    with pytest.raises(KdpError, match=r"'mid_conv.1'.*did you mean 'mid_convs.1'"):
        Taps(build("catanet", **TINY), ["mid_conv.1"])


def test_a_module_without_a_feature_cannot_be_tapped() -> None:
    model = build("catanet", **TINY)
    taps = Taps(model, ["blocks.0.0.irca_attn"])
    with pytest.raises(KdpError, match=r"'blocks.0.0.irca_attn' returns a tuple"), taps:
        model(torch.rand(1, 3, 12, 12))


def test_a_teacher_is_frozen() -> None:
    model = build("catanet", **TINY).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    picture = torch.rand(1, 3, 12, 12, requires_grad=True)
    output, found = Teacher(model, ["mid_convs.0"])(picture)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not output.requires_grad
    assert not found["mid_convs.0"].requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


TAPS = {name: name for name in ("mid_convs.0", "mid_convs.1")}


def distiller(student: nn.Module, **changes: Any) -> Distiller:
    config = DistillConfig.model_validate(
        {
            "task_weight": 0.5,
            "losses": {
                "output": {"weight": 0.25, "schedule": "linear"},
                "feature": {"weight": 2},
                "fakd": {"weight": 10, "options": {"sample": 7}},
            },
            **changes,
        }
    )
    torch.manual_seed(9)
    teacher = TeacherEnsemble(
        [build("catanet", **TINY)], list(TAPS.values()), lambda batch: batch["lr"]
    )
    return Distiller(
        config,
        student,
        teacher,
        taps=TAPS,
        inputs=lambda batch: batch["lr"],
        task_loss=lambda output, batch: (output - batch["hr"]).square().mean(),
        steps=10,
        seed=3,
        probe={"lr": torch.rand(1, 3, 12, 12), "hr": torch.rand(1, 3, 24, 24)},
        confidence_map=lambda output: output.flatten(1),
    )


def test_the_total_is_the_weighted_sum_of_its_parts() -> None:
    torch.manual_seed(1)
    student = build("catanet", **TINY).eval()
    batch = {"lr": torch.rand(2, 3, 12, 12), "hr": torch.rand(2, 3, 24, 24)}
    total, parts = distiller(student)(student, batch, step=6)
    numbers = {name: float(part.detach()) for name, part in parts.items()}
    assert list(numbers) == ["task", "output", "feature", "fakd"]
    assert min(numbers.values()) > 0
    expected = 0.5 * numbers["task"] + 0.25 * 0.4 * numbers["output"]
    expected += 2 * numbers["feature"] + 10 * numbers["fakd"]
    assert float(total.detach()) == pytest.approx(expected, rel=1e-6)


def test_a_step_draws_the_same_sample_whenever_it_runs() -> None:
    torch.manual_seed(1)
    student = build("catanet", **TINY).eval()
    batch = {"lr": torch.rand(2, 3, 12, 12), "hr": torch.rand(2, 3, 24, 24)}
    first, second = distiller(student), distiller(student)
    first(student, batch, step=0)
    _, a = first(student, batch, step=1)
    _, b = second(student, batch, step=1)
    _, c = second(student, batch, step=2)
    assert a["fakd"] == b["fakd"]
    assert a["fakd"] != c["fakd"]


def test_a_tap_that_does_not_run_is_named() -> None:
    student = build("catanet", **TINY)
    objective = distiller(student, losses={"feature": {}})
    objective.taps = Taps(student, ["mid_convs.0"])
    batch = {"lr": torch.rand(1, 3, 12, 12), "hr": torch.rand(1, 3, 24, 24)}
    with pytest.raises(KdpError, match=r"'mid_convs.1' does not run"):
        objective(student, batch, step=0)
