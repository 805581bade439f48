"""Values that no key can use are refused where the configuration is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdp.config.compose import load_config
from kdp.errors import KdpError

FILE = """
output: {name: a, dir: w}
train: {steps: 1, lr: 0.1, clip_norm: 1.0}
distill: {losses: {logits: {weight: 1, options: {temperature: 2}}}}
model: {name: mask_classifier, args: {dropout: 0.1, channels: [4]}}
"""


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize(
    "key",
    [
        "train.lr",
        "train.clip_norm",
        "train.weight_decay",
        "distill.task_weight",
        "distill.losses.logits.weight",
        "distill.losses.logits.options.temperature",
        "model.args.dropout",
        "model.args.channels.0",
        "mac_constraint",
        "data.patch_size",
    ],
)
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "c.yml"
    path.write_text(FILE)
    with pytest.raises(KdpError, match="finite") as raised:
        load_config(path, [f"{key}={value}"])
    assert key.split(".")[0] in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "line", ['output: {name: "a\\0"}', 'teacher: "a\\0.pth"', 'data: {kind: toy, hr: "\\0"}']
)
def test_null_characters_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "c.yml"
    path.write_text(f"{line}\n" if line.startswith("output") else f"output: {{name: a}}\n{line}\n")
    with pytest.raises(KdpError, match=r"null character|printed"):
        load_config(path)
