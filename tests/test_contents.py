"""What files hold is compared with its type at loading: one line names the place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdp.artifacts import Artifact, load, make_record, read_parents, save
from kdp.config import TrainConfig
from kdp.contents import check_types
from kdp.distillation.target_cache import is_cached, write_targets
from kdp.errors import KdpError
from kdp.tensor_contents import TrainingContent
from kdp.training.checkpoint import Checkpoint
from kdp.training.optimizer import make_optimizer
from kdp.training.restore import check_best, restore_parts
from kdp.types import Arch

GONE = object()
ROW = torch.ones(3)


def changed(content: Any, keys: Sequence[Any], value: Any) -> Any:
    """A copy with another value at a place, or without it."""
    if not keys:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    if len(keys) == 1 and value is GONE:
        del copy[keys[0]]
    else:
        inner = copy.get(keys[0]) if isinstance(copy, dict) else copy[keys[0]]
        copy[keys[0]] = changed(inner, keys[1:], value)
    return copy


def edit(path: Path, keys: Sequence[Any], value: Any) -> None:
    torch.save(changed(torch.load(path, weights_only=True), keys, value), path)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    parent, path = tmp_path / "parent.pth", tmp_path / "masks.pth"
    save(parent, Artifact({}, record=make_record("train", {"seed": 0})))
    arch = Arch("catanet", {"dim": 8}, shapes={"a": (1, 2)}, attributes={"m": {"groups": 2}})
    record = make_record("prune", {"seed": 0}, read_parents([parent]), {"psnr": 30.0}, started=1.0)
    extra = {"masks": {"a": torch.ones(3, dtype=torch.bool)}, "scores": {"a": ROW}}
    save(path, Artifact({"w": ROW}, arch, record, {**extra, "masks_digest": "0"}))
    assert load(path).record == record
    return path


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["params"], [ROW]),
        (["params", "w"], "x"),
        (["params"], {1: ROW}),
        (["arch"], ROW),
        (["arch"], "catanet"),
        (["arch", "name"], None),
        (["arch", "args"], [1]),
        (["arch", "args", "dim"], ROW),
        (["arch", "shapes"], {"a": "x"}),
        (["arch", "shapes", "a"], [-1, 2]),
        (["arch", "attributes", "m"], 3),
        (["arch", "groups"], [1]),
        (["record"], ROW),
        (["record"], 1),
        (["record", "stage"], GONE),
        (["record", "config"], "x"),
        (["record", "config", "seed"], ROW),
        (["record", "seed"], 0.5),
        (["record", "versions"], ["kdp"]),
        (["record", "parents"], {"a": 1}),
        (["record", "parents", 0, "sha256"], 1),
        (["record", "parents", 0, "record"], torch.ones(2)),
        (["record", "metrics", "psnr"], ROW),
        (["record", "time"], 1.0),
        (["record", "time", "finished"], "noon"),
        (["masks"], 1),
        (["masks", "a"], ROW),
        (["masks", "a"], torch.ones(3, 2, dtype=torch.bool)),
        (["scores"], float("nan")),
        (["scores", "a"], [1.0]),
        (["masks_digest"], 0),
    ],
)
def test_a_value_of_another_type_is_named(artifact: Path, keys: list[Any], value: Any) -> None:
    edit(artifact, keys, value)
    with pytest.raises(KdpError, match=rf"masks\.pth is damaged at {keys[0]}") as raised:
        load(artifact)
    assert "\n" not in str(raised.value)


def test_keys_of_later_versions_are_accepted(artifact: Path) -> None:
    before = load(artifact)
    edit(artifact, ["record", "host"], {"name": "a"})
    edit(artifact, ["notes"], [1, "x"])
    assert load(artifact).record == before.record


def _run() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, nn.Module(), TrainConfig(steps=4))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    model, optimizer = _run()
    best = {"value": 1.0, "step": 1, "params": model.state_dict(), "metrics": {"a": {"psnr": 1.0}}}
    written = Checkpoint(tmp_path / "checkpoint.pth", {"lr": 0.1})
    state = {"model": model.state_dict(), "average": {}, "extra_modules": {}, "best": best}
    written.write({**state, "optimizer": optimizer.state_dict(), "step": 1})
    assert written.read()["step"] == 1
    return written


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ([], ROW),
        ([], 3),
        ([], {"a": 1}),
        (["step"], -1),
        (["step"], "1"),
        (["signature"], GONE),
        (["signature"], (1, 2)),
        (["signature", "lr"], ROW),
        (["model"], [ROW]),
        (["optimizer"], {}),
        (["optimizer"], ROW),
        (["optimizer", "param_groups"], True),
        (["optimizer", "param_groups", 0], (1, 2)),
        (["optimizer", "param_groups", 0, "fused"], ROW),
        (["optimizer", "state", 0], []),
        (["best", "params"], None),
        (["best", "value"], "x"),
        (["best", "metrics"], {"a": 1}),
        (["running_metrics"], {"psnr": ROW}),
        (["targets"], [1]),
    ],
)
def test_a_checkpoint_of_other_types_is_named(
    checkpoint: Checkpoint, keys: list[Any], value: Any
) -> None:
    edit(checkpoint.path, ["training", *keys], value)
    with pytest.raises(KdpError, match=r"checkpoint\.pth is damaged at training"):
        checkpoint.read()


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["optimizer", "param_groups", 1], GONE),
        (["optimizer", "param_groups", 0, "betas"], (0.5, 0.5)),
        (["optimizer", "param_groups", 0, "eps"], GONE),
        (["optimizer", "state", 0, "exp_avg"], GONE),
        (["optimizer", "state", 0, "exp_avg"], ROW),
        (["optimizer", "state", 1, "step"], None),
        (["optimizer", "state", 0, "momentum_buffer"], ROW),
        (["model", "weight"], GONE),
        (["model", "weight"], ROW),
        (["model", "other"], ROW),
    ],
)
def test_a_state_of_another_training_is_named(
    checkpoint: Checkpoint, keys: list[Any], value: Any
) -> None:
    model, optimizer = _run()
    parts = {"model": model, "optimizer": optimizer}
    state = checkpoint.read()
    restore_parts(checkpoint.path, parts, state)
    state = changed(state, keys, value)
    check_types(checkpoint.path, TrainingContent, state)
    with pytest.raises(KdpError, match=rf"checkpoint\.pth is damaged: its {keys[0]} does not fit"):
        restore_parts(checkpoint.path, parts, state)


@pytest.mark.parametrize("params", [{"a": ROW}, {"w": torch.ones(2)}, {"w": ROW, "b": ROW}])
def test_the_best_weights_are_those_of_the_network(params: dict[str, Any]) -> None:
    check_best(Path("checkpoint.pth"), {}, {"w": ROW})
    with pytest.raises(KdpError, match=r"checkpoint\.pth is damaged: its best does not fit"):
        check_best(Path("checkpoint.pth"), params, {"w": ROW})


@pytest.mark.parametrize(
    ("keys", "value"),
    [(["targets"], {}), (["targets", "a"], 1.0), (["targets", "a"], ROW[0]), (["key"], GONE)],
)
def test_cached_targets_of_other_types_are_named(
    tmp_path: Path, keys: list[Any], value: Any
) -> None:
    path = tmp_path / "targets_0.pth"
    write_targets(path, {"seed": 0}, {"a": torch.ones(2, 3)})
    assert is_cached(path, {"seed": 0}, 2)
    edit(path, keys, value)
    with pytest.raises(KdpError, match=r"targets_0\.pth is damaged at"):
        is_cached(path, {"seed": 0}, 2)
