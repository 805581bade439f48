"""Distillation losses against their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kdp.data.pairs import embedded
from kdp.distillation.losses import LOSSES, make_loss
from kdp.errors import KdpError
from kdp.models.loading import load_network
from kdp.models.taps import Taps
from tests.conftest import ROOT


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    random = generator(seed)
    return [torch.randn(s, generator=random, dtype=torch.float64) for s in shapes]


def l1_by_hand(a: Tensor, b: Tensor) -> float:
    pairs = list(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
    return sum(abs(x - y) for x, y in pairs) / len(pairs)


def affinity_by_hand(student: Tensor, teacher: Tensor) -> float:
    """FAKD's loss of one layer, computed pair by pair."""

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


def test_feature_loss_sums_mean_absolute_differences_over_the_taps() -> None:
    a, b, c, d = features((2, 3, 4, 5), (2, 3, 4, 5), (1, 2, 2, 2), (1, 2, 2, 2))
    loss = make_loss("feature", {})({"one": (a, b), "two": (c, d)}, generator())
    assert float(loss) == pytest.approx(l1_by_hand(a, b) + l1_by_hand(c, d), abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 2, 2), (3, 7, 6)])
def test_l2_loss_sums_mean_squared_differences_over_the_taps(shape: tuple[int, ...]) -> None:
    a, b, c, d = features(shape, shape, (1, 2, 2, 2), (1, 2, 2, 2))

    def by_hand(x: Tensor, y: Tensor) -> float:
        pairs = list(zip(x.flatten().tolist(), y.flatten().tolist(), strict=True))
        return sum((one - other) ** 2 for one, other in pairs) / len(pairs)

    loss = make_loss("feature_l2", {})({"one": (a, b), "two": (c, d)}, generator())
    assert float(loss) == pytest.approx(by_hand(a, b) + by_hand(c, d), abs=1e-12)


def test_output_loss_is_the_mean_absolute_difference_of_outputs() -> None:
    a, b = features((2, 3, 4, 4), (2, 3, 4, 4))
    loss = make_loss("output", {})
    assert loss.loss.compares == "output"
    assert float(loss({"output": (a, b)}, generator())) == pytest.approx(l1_by_hand(a, b))


def test_fakd_matches_its_formula_for_different_widths() -> None:
    a, b, c, d = features((2, 3, 3, 4), (2, 5, 3, 4), (2, 2, 2, 2), (2, 2, 2, 2))
    loss = make_loss("fakd", {"sample": None})({"one": (a, b), "two": (c, d)}, generator())
    assert float(loss) == pytest.approx(affinity_by_hand(a, b) + affinity_by_hand(c, d), abs=1e-12)


def attention_transfer_by_hand(student: Tensor, teacher: Tensor, p: float) -> float:
    """The norm over the whole batch of the difference of attention maps, over the batch size."""

    def maps(feature: Tensor) -> list[list[float]]:
        rows = []
        for image in feature.flatten(2).tolist():
            sums = [sum(abs(v) ** p for v in column) for column in zip(*image, strict=True)]
            norm = math.sqrt(sum(v * v for v in sums)) + 1e-8
            rows.append([v / norm for v in sums])
        return rows

    pairs = zip(maps(student), maps(teacher), strict=True)
    squares = sum((b - a) ** 2 for s, t in pairs for a, b in zip(s, t, strict=True))
    return math.sqrt(squares) / len(student)


@pytest.mark.parametrize("p", [1, 2])
def test_attention_transfer_matches_its_formula_for_different_widths(p: int) -> None:
    a, b, c, d = features((2, 3, 3, 4), (2, 5, 3, 4), (2, 2, 2, 2), (2, 2, 2, 2))
    loss = make_loss("attention_transfer", {"p": p})({"one": (a, b), "two": (c, d)}, generator())
    expected = attention_transfer_by_hand(a, b, p) + attention_transfer_by_hand(c, d, p)
    assert float(loss) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_logits_loss_is_the_scaled_kl_divergence(temperature: float) -> None:
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
    actual = float(loss({"output": (student, teacher)}, generator()))
    assert actual == pytest.approx(temperature**2 * sum(each) / 3, abs=1e-12)


def test_sampling_all_positions_gives_the_exact_affinity() -> None:
    a, b = features((2, 3, 4, 4), (2, 3, 4, 4))
    exact, full = (make_loss("fakd", {"sample": n}) for n in (None, 16))
    sampled, expected = (float(loss({"x": (a, b)}, generator())) for loss in (full, exact))
    assert sampled == pytest.approx(expected, rel=1e-12)


def test_sampled_affinity_is_unbiased_on_real_features() -> None:
    teacher, _, _ = load_network(ROOT / "weights" / "catanet_teacher_x2.pth")
    crop = embedded(2, validation=True)[0].lr()[60:88, 60:88]
    image = torch.from_numpy(crop.transpose(2, 0, 1).copy())[None].float() / 255
    with Taps(teacher, ["mid_convs.2", "mid_convs.7"]) as features, torch.no_grad():
        teacher(image)
    early, late = (feature.double() for feature in features.values())
    pair, sampled = {"x": (early, late)}, make_loss("fakd", {"sample": 48})
    exact = float(make_loss("fakd", {"sample": None})(pair, generator()))
    draws = torch.tensor([float(sampled(pair, generator(seed))) for seed in range(600)])
    assert draws.std() / exact > 0.01, "the draws must differ for their mean to say anything"
    assert float(draws.mean()) == pytest.approx(exact, rel=0.01)


def test_sampled_affinity_takes_under_a_tenth_of_the_memory() -> None:
    student, teacher = torch.randn(1, 40, 64, 64, requires_grad=True), torch.randn(1, 40, 64, 64)

    def saved(options: dict[str, Any]) -> int:
        """Bytes that autograd saves for the loss."""
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
def test_equal_tensors_have_zero_loss(name: str) -> None:
    (a,) = features((2, 3, 4, 4))
    loss = make_loss(name, {})({"x": (a, a.clone())}, generator())
    # Not exactly 0: a matrix product may sum a copy of its input in another order.
    assert float(loss) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("output", {}),
        ("feature", {}),
        ("feature_l2", {}),
        ("fakd", {"sample": 5}),
        ("fakd", {"sample": None}),
        ("attention_transfer", {}),
        ("logits", {"temperature": 2}),
        ("score_weighted", {}),
    ],
)
def test_gradients_match_finite_differences(name: str, options: dict[str, Any]) -> None:
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
        ("feature_l2", (2, 3, 4, 5)),
        ("output", (2, 3, 8, 8)),
        ("fakd", (2, 3, 4, 5)),
        ("logits", (2, 5, 4, 4)),
        ("attention_transfer", (2, 3, 5, 4)),
        ("score_weighted", (2, 3, 5, 4)),
    ],
)
def test_tensors_of_other_shapes_are_rejected_by_name(name: str, other: tuple[int, ...]) -> None:
    a, b = features((2, 3, 4, 4), other)
    with pytest.raises(KdpError, match=r"'blocks.0'.*\(2, 3, 4, 4\)") as caught:
        make_loss(name, {})({"blocks.0": (a, b)}, generator())
    assert str(other) in str(caught.value)


def test_features_without_positions_are_rejected() -> None:
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
def test_unknown_losses_and_options_are_rejected(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdpError, match=message):
        make_loss(name, options)
