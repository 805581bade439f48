"""Configuration files: composed, checked, and errors explained in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from kdp.config import Config, base
from kdp.config.compose import load_config, load_with_files
from kdp.errors import KdpError
from kdp.models import build_on_meta
from kdp.tasks.super_resolution.section import PatchOptions
from tests.conftest import ROOT
from tests.shipped import NAMES, shipped

Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Writes a configuration into an empty folder."""

    def writer(text: str, name: str = "run.yml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return writer


def _fault(path: Path, *overrides: str) -> str:
    with pytest.raises(KdpError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_files_of_a_configuration_are_forgotten(write: Writer) -> None:
    """An overlay of one must not be found by the next, and Hydra copies all that it knows."""
    named = write("output: {name: a}\n", "named.yml")
    load_config(named)
    before = _known(ConfigStore.instance().repo)
    load_config(ROOT / "configs" / "face_mask" / "face_mask.yml", ["faces=real"])
    _fault(write("output: {name: a}\nsede: 1\n"))
    load_config(named)
    assert _known(ConfigStore.instance().repo) == before
    assert not any("face_mask" in name or name.startswith("faces") for name in before)


def _known(group: dict[str, Any], prefix: str = "") -> set[str]:
    """Names of the configurations that Hydra knows."""
    return {
        name
        for key, entry in group.items()
        for name in (_known(entry, f"{key}/") if isinstance(entry, dict) else {prefix + key})
    }


def test_there_are_shipped_files() -> None:
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_shipped_files_fit_the_schema(name: str) -> None:
    config = shipped(name)
    assert isinstance(config, Config)
    if config.model:
        build_on_meta(config.model.arch)


@pytest.mark.parametrize("name", ["real", "toy"])
def test_a_choice_for_the_whole_file_reaches_its_sections(name: str) -> None:
    config = load_config(
        ROOT / "configs" / "face_mask" / "face_mask_kd_small.yml", [f"faces={name}"]
    )
    assert (config.data.kind == "folders") is (name == "real")
    assert list(config.evaluation) == (["val"] if name == "real" else ["embedded"])


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("output: {name: a}\nsede: 1\n", "sede", "seed"),
        ("output: {name: a, dri: w}\n", "output.dri", "dir"),
        ("output: {name: a}\ntrain: {steps: 3, btch_size: 2}\n", "train.btch_size", "batch_size"),
        (
            "output: {name: a}\nevaluation: {set5: {kid: paired}}\n",
            "evaluation.set5.kid",
            "kind",
        ),
        (
            "output: {name: a}\ndistill: {losses: {l1: {weigth: 2}}}\n",
            "distill.losses.l1.weigth",
            "weight",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(
    write: Writer, text: str, key: str, near: str
) -> None:
    assert f"unknown key '{key}'; did you mean '{near}'?" in _fault(write(text))


def test_an_unrecognisable_key_lists_the_known_ones(write: Writer) -> None:
    message = _fault(write("output: {name: a, zzz: 1}\n"))
    assert "unknown key 'output.zzz'; available: dir, name, runs" in message


@pytest.mark.parametrize(
    ("text", "where", "got"),
    [
        ("output: {name: a}\nseed: many\n", "seed", "'many'"),
        ("output: {name: a}\ntrain: {steps: -1}\n", "train.steps", "-1"),
        ("output: {name: a}\nmac_constraint: 1.5\n", "mac_constraint", "1.5"),
        ("output: {name: a}\ndata: {kind: pictures}\n", "data.kind", "'pictures'"),
        ("output: [a]\n", "output: it must be a mapping of keys", "['a']"),
        ("output: {name: a}\ndata: {kind: null}\n", "data.kind: no kind", "'None'"),
        ("output: {name: a}\ndata: {hr: x}\n", "'data.hr'", "needs a kind: hr_only or paired"),
        ("output: {name: a}\nrounds: [{stps: 3}]\n", "unknown key 'rounds.0.stps'", "'steps'"),
        ("output: {name: a}\ndata: 3\n", "data: it must be a mapping of keys", "got 3"),
        ("output: {name: a}\ntrain: {steps: 3, betas: [0, x]}\n", "train.betas.1:", "'x'"),
        (
            "output: {name: a}\ndistill: {losses: {l1: {}}, teacher: {weights: 3}}\n",
            "distill.teacher.weights: ",
            "got 3",
        ),
        (
            "output: {name: a}\ndistill: {losses: {l1: {}}, taps: [[1], b]}\n",
            "distill.taps",
            "[1]",
        ),
        ("output: {name: a}\ntiles: {size: 8, overlap: 9}\n", "overlap (9)", "size (8)"),
        ("seed: 1\n", "required key 'output'", "missing"),
        (
            "output: {name: a}\nevaluation: {x: {kind: paired, hr: a}}\n",
            "'evaluation.x.lr'",
            "is missing",
        ),
        ("output: {name: a}\ndata: {kind: pared}\n", "data.kind", "did you mean 'paired'"),
    ],
)
def test_a_value_that_does_not_fit_is_named(write: Writer, text: str, where: str, got: str) -> None:
    message = _fault(write(text))
    assert where in message
    assert got in message


def test_further_errors_are_counted(write: Writer) -> None:
    assert "(and 1 more)" in _fault(write("output: {name: a}\nseed: x\nsede: 1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mac_constraint: 0.5\npruning_ratio: 0.5\n", ".yml: give mac_constraint or pruning_ratio"),
        ("train: {steps: 3, schedule: multistep}\n", ".yml: train: the schedule multistep needs"),
    ],
)
def test_conflicting_keys_are_a_one_line_error(write: Writer, text: str, message: str) -> None:
    with pytest.raises(KdpError) as caught:
        load_config(write(f"output: {{name: a}}\n{text}"))
    assert message in str(caught.value)
    assert "{" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "does not exist" in _fault(tmp_path / "gone.yml")


@pytest.mark.parametrize("end", [b"# \xe9\n", b"# \xff\xfe\n", b"seed: 0 # \xc3\n"])
def test_characters_of_another_encoding_are_replaced(tmp_path: Path, end: bytes) -> None:
    (tmp_path / "a.yml").write_bytes(b"output: {name: a}\n" + end)
    assert load_config(tmp_path / "a.yml").output.name == "a"


@pytest.mark.parametrize("text", ["output: {name: a\n", "a: b: c\n", "\t- x\n", "a: 1\na: 2\n"])
def test_bad_yaml_is_named(write: Writer, text: str) -> None:
    assert "is not valid YAML" in _fault(write(text))


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just words\n", ""])
def test_a_file_without_keys_is_named(write: Writer, text: str) -> None:
    _fault(write(text))


def test_an_unresolved_reference_is_named(write: Writer) -> None:
    assert "nowhere" in _fault(write("output: {name: '${nowhere}'}\n"))


def test_overrides_reach_any_depth(write: Writer) -> None:
    path = write("seed: 1\noutput: {name: a}\ntrain: {steps: 3, betas: [0.9, 0.99]}\n")
    overrides = ["seed=7", "train.steps=5", "train.betas=[0.5,0.6]", "output.dir=/tmp/out"]
    config = load_config(path, overrides)
    assert config.train is not None
    assert (config.seed, config.train.steps, config.train.betas) == (7, 5, (0.5, 0.6))
    assert config.output.dir == Path("/tmp/out")


def test_an_override_may_set_what_the_file_does_not(write: Writer) -> None:
    path = write("output: {name: a}\n")
    overrides = ["mac_constraint=0.5", "train.steps=9", "evaluation.set5={kind: hr_only, hr: x}"]
    config = load_config(path, overrides)
    assert config.train is not None
    assert (config.mac_constraint, config.train.steps) == (0.5, 9)
    assert config.plain()["evaluation"]["set5"]["hr"] == "x"


def test_overrides_are_checked_as_the_file_is(write: Writer) -> None:
    path = write("output: {name: a}\n")
    assert "did you mean 'seed'" in _fault(path, "sed=1")
    assert "seed" in _fault(path, "seed=x")


@pytest.mark.parametrize("override", ["seed", "", "=3", "~"])
def test_a_malformed_override_is_named(write: Writer, override: str) -> None:
    assert f"override {override!r}" in _fault(write("output: {name: a}\n"), override)


def test_a_key_can_be_removed(write: Writer) -> None:
    assert load_config(write("output: {name: a}\nseed: 3\n"), ["~seed"]).seed == 0


def test_one_file_does_not_leak_into_the_next(write: Writer) -> None:
    first = write("output: {name: a}\nmac_constraint: 0.5\n", "one/run.yml")
    second = write("output: {name: b}\n", "two/run.yml")
    assert load_config(first).mac_constraint == 0.5
    assert load_config(second).mac_constraint is None


def _composed(write: Writer) -> Path:
    write("seed: 1\noutput: {name: base}\ntrain: {steps: 3}\n", "base.yml")
    write("kind: embedded\npatch_size: 20\n", "data/small.yml")
    write("kind: embedded\npatch_size: 60\n", "data/large.yml")
    return write("defaults: [base, {data: small}, _self_]\nseed: 2\n")


def test_defaults_are_composed_in_their_order(write: Writer) -> None:
    config = load_config(_composed(write))
    assert (config.seed, config.output.name, config.data.options(PatchOptions).patch_size) == (
        2,
        "base",
        20,
    )


def test_a_choice_can_be_overridden(write: Writer) -> None:
    config = load_config(_composed(write), ["data=large", "data.workers=3"])
    assert (config.data.options(PatchOptions).patch_size, config.data.workers) == (60, 3)


def test_composed_files_are_listed(write: Writer) -> None:
    path = _composed(write)
    names = [file.relative_to(path.parent).as_posix() for file in load_with_files(path)[1]]
    assert names == ["run.yml", "base.yml", "data/small.yml"]
    assert path.parent / "data" / "large.yml" in load_with_files(path, ["data=large"])[1]


def test_defaults_may_end_in_yaml(write: Writer) -> None:
    write("seed: 7\noutput: {name: base}\n", "base.yaml")
    assert load_config(write("defaults: [base, _self_]\n")).seed == 7


def test_a_missing_choice_is_named(write: Writer) -> None:
    with pytest.raises(KdpError, match=r"data=huge does not exist; available: large, small"):
        load_config(_composed(write), ["data=huge"])


def test_a_missing_default_is_named(write: Writer) -> None:
    with pytest.raises(KdpError, match=r"run\.yml: the default 'gone' does not exist"):
        load_config(write("defaults: [gone]\noutput: {name: a}\n"))


def test_records_keep_plain_values(write: Writer) -> None:
    import json

    path = write("output: {name: a}\nmodel: {name: catanet, args: {upscale: 2}}\n")
    plain = load_config(path).plain()
    assert json.loads(json.dumps(plain)) == plain
    assert Config.model_validate(plain) == load_config(path)


def test_an_old_key_works_and_its_new_name_is_logged(
    write: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    path = write("output: {name: a}\ndistill: {targets: old, losses: {mse: {}}}\n")
    base._warn_renamed.cache_clear()
    config = load_config(path)
    assert config.distill
    assert config.distill.target_cache == Path("old")
    (record,) = caplog.records
    assert "the key targets is now called target_cache" in record.message


def test_an_override_by_the_old_name_replaces_the_new_key(write: Writer) -> None:
    path = write("output: {name: a}\ndistill: {target_cache: new, losses: {mse: {}}}\n")
    config = load_config(path, ["distill.targets=old"])
    assert config.distill
    assert config.distill.target_cache == Path("old")
