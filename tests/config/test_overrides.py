"""`KEY=VALUE`: numbers and lists are parsed as by Hydra, everything else is text."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdp.config.compose import load_config
from kdp.config.overrides import several_values
from kdp.errors import KdpError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run.yml"
    path.write_text("output: {name: a}\nexperiments: {notes: ''}\n")
    return path


@pytest.mark.parametrize(
    "value",
    [
        "two words",
        "[2024] set (new)",
        "größe",
        "日本",
        "a=b",
        "it's",
        "a: b",
        "#1!",
        "x}{",
        "C:\\x\\",
        "\\'",
        "007",
        "1e-3",
        "yes",
        "true",
        "2024",
        " blanks ",
        "${",
        "${unclosed",
        "a ${ b",
        "${.}",
        "foo(bar,baz)",
        "a,b]",
    ],
)
def test_text_is_kept_as_typed(run: Path, value: str) -> None:
    config = load_config(run, [f"experiments.notes={value}", f"output.dir={value}"])
    assert config.experiments is not None
    assert config.experiments.notes == value
    assert config.output.dir == Path(value)


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("a=1,2", ["1", "2"]),
        ("a=range(1,4)", ["1", "2", "3"]),
        ("a=[1,2],[3]", ["[1,2]", "[3]"]),
        ("a=x[1.pth,y=2.pth", ["'x[1.pth'", "'y=2.pth'"]),
        ("a=é,ü", ["'é'", "'ü'"]),
        ("a=(é,ü)", ["'(é,ü)'"]),
        ("a=[é,ü]", ["['é','ü']"]),
        ("a=[é,b c],[1]", ["['é',b c]", "[1]"]),
        ("a=é(1,2),3", ["'é(1,2)'", "3"]),
        ("a=1", ["1"]),
    ],
)
def test_commas_separate_the_values_of_a_grid(override: str, values: list[str]) -> None:
    assert several_values(override) == values


def test_numbers_lists_and_references_are_read(run: Path) -> None:
    overrides = ["train.steps=3", "train.lr=1e-3", "train.betas=[0.5,0.6]", "seed=${train.steps}"]
    config = load_config(run, overrides)
    assert config.train is not None
    assert (config.train.lr, config.train.betas, config.seed) == (1e-3, (0.5, 0.6), 3)


@pytest.mark.parametrize(
    "value", ["${nope}", "${oc.env:NOPE}", "${foo:bar}", "${experiments.notes}", "x${seed.y}"]
)
def test_a_reference_that_cannot_be_resolved_is_named(run: Path, value: str) -> None:
    with pytest.raises(KdpError) as caught:
        load_config(run, [f"experiments.notes={value}"])
    expected = f"{run}: experiments.notes: the reference in {value!r} cannot be resolved"
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["ä", "[x]", "a.", "experiments.notes@x", "hydra/launcher"])
def test_a_key_outside_of_the_grammar_is_named(run: Path, key: str) -> None:
    with pytest.raises(KdpError, match="has a key that kdp cannot read"):
        load_config(run, [f"{key}=1"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[mit Maske,ohne Maske,口罩]", ["mit Maske", "ohne Maske", "口罩"]),
        ("[größe, 'a,b', 3]", ["größe", "a,b", 3]),
        ("[c#,it's]", ["c#", "it's"]),
        ("[без маски]", ["без маски"]),
    ],
)
def test_items_of_a_list_may_be_any_text(run: Path, value: str, expected: list[object]) -> None:
    config = load_config(run, ["model.name=mask_classifier", f"model.args.classes={value}"])
    assert config.model is not None
    assert config.model.args["classes"] == expected


@pytest.mark.parametrize("folder", ["[größe]", "[ü,ö]", "[2024 ж]"])
def test_a_path_in_brackets_is_no_list(run: Path, folder: str) -> None:
    assert str(load_config(run, [f"output.dir={folder}"]).output.dir) == folder


def test_null_removes_a_value(run: Path) -> None:
    assert load_config(run, ["mac_constraint=0.5", "mac_constraint=null"]).mac_constraint is None


@pytest.mark.parametrize("override", ["seed=1,2", "output.name=a,b", "seed=range(1,4)"])
def test_several_values_point_to_sweep(run: Path, override: str) -> None:
    with pytest.raises(KdpError, match="kdp sweep") as caught:
        load_config(run, [override])
    assert "\n" not in str(caught.value)
    assert str(run) in str(caught.value)


def test_a_quoted_comma_is_text(run: Path) -> None:
    assert load_config(run, ["output.name='a,b'"]).output.name == "a,b"


def test_a_value_that_is_not_a_number_is_named(run: Path) -> None:
    with pytest.raises(KdpError, match=r"seed: .*got '\[1'"):
        load_config(run, ["seed=[1"])


def test_a_mistyped_group_of_overlays_is_named(run: Path) -> None:
    with pytest.raises(KdpError, match="unknown key 'faecs'; did you mean 'faces'"):
        load_config(run, ["faecs=real"])
