"""Where `--config`, the entries of defaults lists, and overlays are looked for."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kdp.config.compose import load_config, load_with_files
from kdp.config.lookup import find_config
from kdp.errors import KdpError
from kdp.log import log_once
from kdp.shipped import CONFIGS, WEIGHTS, shipped_configs
from kdp.stages.paths import chain_paths
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    log_once.cache_clear()
    return tmp_path


def _write(path: str, text: str = "output: {name: mine}\n") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def _error(path: str) -> str:
    with pytest.raises(KdpError) as caught:
        find_config(Path(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_lists_name_every_shipped_file() -> None:
    configs = {
        path.relative_to(ROOT / "configs").as_posix() for path in ROOT.glob("configs/**/*.yml")
    }
    assert configs == set(CONFIGS)
    assert all((ROOT / "weights" / name).is_file() for name in WEIGHTS)


@pytest.mark.parametrize("overrides", [[], ["faces=real"], ["faces=collection"]])
def test_no_shipped_configuration_trains_onto_a_shipped_weight(overrides: list[str]) -> None:
    for name in (Path(weight).stem for weight in WEIGHTS):
        for path in ROOT.glob("configs/**/*.yml"):
            if f"  name: {name}\n" in path.read_text():
                config = load_config(path, overrides)
                assert chain_paths(config).trained != Path("weights", f"{name}.pth"), path


def test_a_path_as_written_comes_first() -> None:
    _write("configs/run.yml")
    assert find_config(_write("run.yml")) == Path("run.yml")


def test_then_the_folder_configs_is_searched() -> None:
    _write("configs/config_catanet.yml")
    assert find_config(Path("config_catanet.yml")) == Path("configs/config_catanet.yml")


def test_then_the_package_is_searched() -> None:
    config = find_config(Path("config_catanet.yml"))
    assert config == shipped_configs() / "config_catanet.yml"


def test_a_sub_folder_may_be_left_out() -> None:
    assert find_config(Path("rep_mobile.yml")) == shipped_configs() / "scenes" / "rep_mobile.yml"
    _write("configs/mine/deep/run.yml")
    for name in ("run.yml", "deep/run.yml", "mine/deep/run.yml"):
        assert find_config(Path(name)) == Path("configs/mine/deep/run.yml")


def test_the_ending_may_be_left_out() -> None:
    assert find_config(Path("rep_mobile")).name == "rep_mobile.yml"


def test_an_old_place_is_found_and_the_new_one_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kdp")
    config = find_config(Path("configs/rep_mobile.yml"))
    assert config == shipped_configs() / "scenes" / "rep_mobile.yml"
    assert str(config) in caplog.text


def test_two_files_of_one_name_are_both_named() -> None:
    _write("configs/one/run.yml")
    _write("configs/two/run.yml")
    message = _error("run.yml")
    assert "configs/one/run.yml" in message
    assert "configs/two/run.yml" in message
    assert find_config(Path("two/run.yml")) == Path("configs/two/run.yml")


def test_a_missing_configuration_suggests_the_nearest() -> None:
    assert "did you mean config_catanet.yml" in _error("config_catnet.yml")
    assert "`kdp configs` lists them" in _error("zzz.yml")


@pytest.mark.parametrize("path", ["../config_catanet.yml", "/config_catanet.yml"])
def test_a_path_that_leaves_the_folder_is_taken_as_written(path: str) -> None:
    assert f"{path} does not exist" in _error(path)


@pytest.mark.parametrize("name", ["real.yml", "faces/real.yml", "overlays/faces/real.yml"])
def test_an_overlay_is_not_a_configuration(name: str) -> None:
    assert "does not exist" in _error(name)


def test_an_overlay_as_written_is_refused_with_its_use() -> None:
    path = _write("configs/overlays/faces/mine.yml", "# @package _global_\nseed: 1\n")
    assert "faces=mine" in _error(str(path))


def test_defaults_are_looked_for_beside_the_file_first() -> None:
    _write("configs/face_mask.yml", "output: {name: far}\n")
    _write("mine/face_mask.yml", "output: {name: near}\n")
    path = _write("mine/run.yml", "defaults: [face_mask]\n")
    assert load_config(path).output.name == "near"


def test_defaults_are_then_looked_for_in_the_folder_configs() -> None:
    _write("configs/sub/face_mask.yml", "output: {name: local}\n")
    assert load_config(_write("run.yml", "defaults: [face_mask]\n")).output.name == "local"


def test_defaults_are_then_looked_for_in_the_package() -> None:
    path = _write("run.yml", "defaults: [face_mask, _self_]\nseed: 5\n")
    config = load_config(path, ["faces=real"])
    assert (config.seed, config.output.name, config.data.kind) == (5, "face_mask", "folders")


def test_a_file_may_have_the_name_of_the_one_it_includes() -> None:
    path = _write("configs/face_mask.yml", "defaults: [face_mask, _self_]\nseed: 5\n")
    config = load_config(path)
    assert (config.seed, config.output.name) == (5, "face_mask")
    assert load_with_files(path)[1][1] == shipped_configs() / "face_mask" / "face_mask.yml"


def test_a_choice_of_the_included_file_can_be_changed_in_the_file() -> None:
    text = "defaults: [face_mask, override faces: real, _self_]\n"
    assert load_config(_write("run.yml", text)).data.kind == "folders"


def test_a_cycle_is_named() -> None:
    _write("one.yml", "defaults: [two]\n")
    _write("two.yml", "defaults: [one]\n")
    with pytest.raises(KdpError, match=r"cycle: one\.yml -> two\.yml -> one\.yml"):
        load_config(Path("one.yml"))


def test_users_can_add_overlays() -> None:
    _write("configs/overlays/faces/mine.yml", "# @package _global_\nlimits: {macs: 9}\n")
    limits = load_config(Path("face_mask.yml"), ["faces=mine"]).limits
    assert limits is not None
    assert limits.macs == 9


def test_a_mistyped_overlay_names_what_there_is() -> None:
    with pytest.raises(
        KdpError, match=r"faces=rael does not exist; available: collection, real, toy"
    ):
        load_config(Path("face_mask.yml"), ["faces=rael"])


def test_an_overlay_can_be_added_to_any_configuration() -> None:
    path = _write("run.yml", "output: {name: mine}\nmodel: {name: mask_classifier}\n")
    config = load_config(path, ["faces=real"])
    assert (config.output.name, list(config.evaluation)) == ("mine", ["val"])


@pytest.mark.parametrize(
    "entries",
    [
        *("", "5", "base", "{a: b}", "[5]", "['']", "[null]", "[[base]]", "[{}]", "[true]"),
        *("[{faces: 5}]", "[{faces: [1]}]", "[{5: real}]", "[{'': real}]", "['???']", "[1.5]"),
        *("[/etc/passwd]", "['.']", "['..']", "[/]", "[{faces: '${x}'}]"),
    ],
)
def test_what_a_defaults_list_cannot_hold_is_one_line(entries: str) -> None:
    path = _write("run.yml", f"defaults: {entries}\noutput: {{name: a}}\n")
    with pytest.raises(KdpError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: defaults: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["${unclosed", "${}", "${.}"])
def test_a_reference_that_cannot_be_read_is_named(value: str) -> None:
    path = _write("run.yml", f"output: {{name: '{value}'}}\n")
    with pytest.raises(KdpError, match=r"output\.name: .* is no valid reference") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("defaults: [a.yml]", "the default 'a.yml' is this file itself"),
        ("defaults: [a]", "the default 'a' is this file itself"),
        ("defaults: [other.yml]", r"does not exist \(looked for other\.yml\)"),
        ("defaults: [other]", r"does not exist \(looked for other\.yml and other\.yaml\)"),
        ("defaults: [_self_, _self_]", "_self_ stands there more than once"),
        ("defaults: [{faces: real}, {faces: null}]", "faces stands there more than once"),
        ("defaults: [{faces: real}, {optional /faces: real}]", "faces stands there more than once"),
        ("seed: !!set {a, b}", "seed: Value 'set' is not a supported"),
        ("data: {kind: !!set {a}}", "data.kind: Value 'set' is not a supported"),
    ],
)
def test_a_file_that_cannot_be_composed_is_named_in_plain_words(text: str, words: str) -> None:
    Path("a.yml").write_text(text)
    with pytest.raises(KdpError, match=rf"^a\.yml: .*{words}"):
        load_config(Path("a.yml"))
