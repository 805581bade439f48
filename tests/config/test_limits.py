"""Configurations that stand for more memory or time than there is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from kdp.config import Config
from kdp.config.compose import load_config
from kdp.data.yolo_yaml import yolo_yaml
from kdp.errors import KdpError
from kdp.training.job import check_batch

OUTPUT = "output: {name: x}\n"


def bomb(levels: int = 12) -> str:
    """Each level refers ten times to the one before."""
    lines = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(["l0: &l0 [a, b]", *lines]) + "\n"


def merged(levels: int = 12) -> str:
    """The same by merge keys."""
    lines = [f"l{i}: &l{i} {{<<: [{', '.join([f'*l{i - 1}'] * 10)}]}}" for i in range(1, levels)]
    return "\n".join(["l0: &l0 {a: 1}", *lines]) + "\n"


def quoted(levels: int = 40) -> str:
    """The same by keys, two in each level."""
    lines = [f"l{i}: &l{i} {{a: *l{i - 1}, b: *l{i - 1}}}" for i in range(1, levels)]
    return "\n".join(["l0: &l0 x", *lines]) + "\n"


LARGE = {
    "aliases": OUTPUT + bomb(),
    "merge keys": OUTPUT + merged(),
    "keys": OUTPUT + quoted(),
    "inside itself": OUTPUT + "a: &a [*a]\n",
    "nested": OUTPUT + "a: " + "[" * 1200 + "]" * 1200,
    "digits": OUTPUT + "seed: " + "9" * 5000,
    "hexadecimal digits": OUTPUT + "train: {steps: 0x" + "f" * 9000 + "}",
    "digits in groups": OUTPUT + "data: {workers: -" + "1_000" * 900 + "}",
    "long": OUTPUT + "# " + "x" * 300_000,
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_yaml_that_would_grow_is_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    started = time.perf_counter()
    for read in (load_config, lambda file: yolo_yaml(file, "train", ["a"])):
        with pytest.raises(KdpError, match=r"refused|nested too deeply"):
            read(path)
    assert time.perf_counter() - started < 10


def test_aliases_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    section = "{lr: 1e-3, steps: 5}"
    path.write_text(OUTPUT + f"train: &t {section}\nfinetune: {{<<: *t, steps: 7}}\n")
    config = load_config(path)
    assert config.train
    assert config.finetune
    assert (config.train.lr, config.finetune.lr, config.finetune.steps) == (1e-3, 1e-3, 7)


def test_defaults_that_multiply_are_refused(tmp_path: Path) -> None:
    for level in range(8):
        (tmp_path / f"l{level}.yml").write_text(f"defaults: [{', '.join([f'l{level + 1}'] * 4)}]\n")
    (tmp_path / "l8.yml").write_text(OUTPUT)
    with pytest.raises(KdpError, match="name more than 100 files"):
        load_config(tmp_path / "l0.yml")


@pytest.mark.parametrize("link", ["x.yml", "y.yml"])
def test_links_in_a_circle_are_no_configuration(tmp_path: Path, link: str) -> None:
    (tmp_path / "x.yml").symlink_to(link)
    if link != "x.yml":
        (tmp_path / link).symlink_to("x.yml")
    with pytest.raises(KdpError, match="does not exist"):
        load_config(tmp_path / "x.yml")


TRAIN = {"steps": 5}


@pytest.mark.parametrize(
    "keys",
    [
        {"train": {**TRAIN, "batch_size": 1e30}},
        {"finetune": {**TRAIN, "batch_size": 10**6}},
        {"train": {"steps": 1e30}},
        {"data": {"workers": 10**9}},
        {"measure": {"latency_size": [10**6, 10**6]}},
        {"measure": {"latency_runs": 1e300}},
        {"data": {"patch_size": 1e9}},
        {"seed": 1e40},
    ],
)
def test_numbers_that_nobody_means_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"output": {"name": "x"}, **keys})


@pytest.mark.parametrize("key", ["seed", "train.steps", "output.name"])
def test_numbers_of_many_digits_are_refused_as_overrides(tmp_path: Path, key: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(OUTPUT + "train: {steps: 5}\n")
    with pytest.raises(KdpError, match=rf"x\.yml: {key}: "):
        load_config(path, [f"{key}={'9' * 5000}"])


def test_a_batch_that_does_not_fit_is_refused() -> None:
    sample = {"image": torch.zeros(1).expand(3, 10_000, 10_000)}
    check_batch(sample, 1)
    with pytest.raises(KdpError, match="lower batch_size"):
        check_batch(sample, 60_000)


REFERENCES = {
    "text": "l0: xxxxxxxxxx\n"
    + "".join(f'l{i}: "{f"${{l{i - 1}}}" * 10}"\n' for i in range(1, 12)),
    "sections": "l0: {a: 1}\n"
    + "".join(f"l{i}: {{a: '${{l{i - 1}}}', b: '${{l{i - 1}}}'}}\n" for i in range(1, 40)),
    "relative": "s:\n  l0: x\n"
    + "".join(f'  l{i}: "{f"${{.l{i - 1}}}" * 10}"\n' for i in range(1, 12)),
    "computed": "a: b\nb: xxxx\nl1: '${${a}}${${a}}'\n",
    "circle": "a: '${b}'\nb: '${a}'\n",
}


@pytest.mark.parametrize("text", REFERENCES.values(), ids=REFERENCES)
def test_references_that_multiply_are_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(f"{OUTPUT}model: {{name: x, args: {{}}}}\n{text}")
    started = time.perf_counter()
    with pytest.raises(KdpError, match="refused with its references"):
        load_config(path)
    assert time.perf_counter() - started < 10


def test_references_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text(
        "output: {name: a, dir: w}\nteacher: ${output.dir}/${oc.env:NOT_SET,${output.name}}.pth\n"
        "model: {name: m, args: {x: 3, y: '${.x}', z: '${model.args.y}'}}\n"
    )
    config = load_config(path)
    assert config.model
    assert config.teacher == Path("w/a.pth")
    assert config.model.args == {"x": 3, "y": 3, "z": 3}
