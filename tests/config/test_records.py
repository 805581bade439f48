"""The configuration in a record: plain values that become the same configuration again."""

from __future__ import annotations

import json
import pickle

import pytest

from kdp.artifacts import load
from kdp.config import Config
from kdp.config.compose import load_config
from kdp.shipped import WEIGHTS
from tests.conftest import ROOT
from tests.shipped import NAMES, shipped


@pytest.mark.parametrize("name", NAMES)
def test_plain_values_become_the_same_configuration(name: str) -> None:
    config = shipped(name)
    plain = config.plain()
    assert json.loads(json.dumps(plain)) == plain
    assert Config.model_validate(plain) == config


@pytest.mark.parametrize("name", WEIGHTS)
def test_records_of_older_versions_are_read(name: str) -> None:
    record = load(ROOT / "weights" / name).record
    assert record is not None
    config = Config.model_validate(record.config)
    assert Config.model_validate(config.plain()) == config
    assert config.output.name == record.config["output"]["name"]
    assert config.data.kind == record.config["data"]["kind"]


def test_records_with_the_keys_of_every_data_kind_are_read() -> None:
    old = {
        "kind": "embedded",
        "split": None,
        "folder": None,
        "hr": None,
        "lr": None,
        "lr_template": None,
        "cache": ".cache/lr",
        "image_size": 64,
    }
    config = Config.model_validate(
        {
            "output": {"name": "a"},
            "data": {**old, "patch_size": 20, "mosaic": 0.5, "audio": {"roll": 0.2}},
            "evaluation": {"real": {**old, "kind": "folders", "folder": "faces"}},
        }
    )
    assert config.plain()["data"]["patch_size"] == 20
    assert config.plain()["evaluation"] == {
        "real": {"kind": "folders", "at_end": False, "folder": "faces", "split": None}
    }


def test_a_configuration_can_be_pickled() -> None:
    config = load_config(ROOT / "configs" / "config_catanet.yml")
    assert pickle.loads(pickle.dumps(config)) == config
