"""Artifacts and foreign checkpoints: what loads, what is refused, and how files are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact, load, make_record, save
from kdp.errors import KdpError
from kdp.files import file_lock, sha256, write_atomic
from kdp.models import build
from kdp.models.loading import load_network
from kdp.models.onnx_file import OnnxNetwork
from kdp.types import Arch, CodeSource, Parent, Provenance, RunTime
from tests.conftest import ROOT, TINY

ARCH = Arch("catanet", TINY)
SMALL: dict[str, Any] = {
    "dim": 6,
    "tab_heads": [4, 3, 2, 1, 0, 1, 2, 4],
    "tab_neurons": [5, 4, 3, 2, 1, 0, 7, 6],
    "lrsa_heads": [1, 0, 2, 1, 3, 1, 1, 1],
    "lrsa_neurons": [0, 2, 3, 4, 5, 6, 7, 8],
}
"""Widths of a pruned network whose patches, groups and head widths are the published ones."""


def _network(**args: Any) -> nn.Module:
    torch.manual_seed(0)
    model = build("catanet", **args)
    with torch.no_grad():
        model(torch.rand(1, 3, 12, 12))
    return model.eval()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("key", ["params", "params_ema", "state_dict", None])
def test_checkpoints_of_others_load_by_key(tmp_path: Path, key: str | None, scale: int) -> None:
    model = _network(upscale=scale, **SMALL)
    weights = model.state_dict()
    path = tmp_path / "foreign.pth"
    torch.save({key: weights, "iter": 7} if key else weights, path)
    loaded, arch, _ = load_network(path)
    assert arch == Arch("catanet", {"upscale": scale, **SMALL})
    x = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_averaged_weights_go_before_plain_ones(tmp_path: Path) -> None:
    weights = _network(upscale=2, **SMALL).state_dict()
    averaged = {name: tensor * 0 for name, tensor in weights.items()}
    torch.save({"params": weights, "params_ema": averaged}, tmp_path / "both.pth")
    loaded, _, _ = load_network(tmp_path / "both.pth")
    assert not any(parameter.any() for parameter in loaded.parameters())


def test_names_of_data_parallel_training_are_understood(tmp_path: Path) -> None:
    weights = {f"module.{k}": v for k, v in _network(upscale=2, **SMALL).state_dict().items()}
    torch.save(weights, tmp_path / "parallel.pth")
    assert load_network(tmp_path / "parallel.pth")[1].args["upscale"] == 2


def test_official_weights_load(shared: Path, tmp_path: Path) -> None:
    golden = torch.load(shared / "golden" / "catanet_x3.pt", weights_only=True)
    torch.save({"params": golden["state_dict"]}, tmp_path / "x3.pth")
    expected = Arch("catanet", {"upscale": 3, "tab_heads": 4, "lrsa_neurons": 96})
    model, arch, _ = load_network(tmp_path / "x3.pth", expected)
    assert arch.args["dim"] == 40
    assert sum(p.numel() for p in model.parameters()) == 549_635


@pytest.mark.parametrize("foreign", [True, False])
def test_another_scale_than_expected_is_refused(tmp_path: Path, foreign: bool) -> None:
    params = _network(upscale=2, **SMALL).state_dict()
    path = tmp_path / "x2.pth"
    if foreign:
        torch.save({"params": params}, path)
    else:  # the scale is the default of the network here, and not spelt out
        save(path, Artifact(params, Arch("catanet", SMALL)))
    with pytest.raises(KdpError, match=r"x2\.pth.*upscale=2.*upscale=3"):
        load_network(path, Arch("catanet", {"upscale": 3}))


def test_arguments_without_trace_in_the_weights_are_the_expected_ones(tmp_path: Path) -> None:
    torch.save(_network(upscale=2, **SMALL).state_dict(), tmp_path / "plain.pth")
    expected = Arch("catanet", {"upscale": 2, "group_sizes": [16] * 8})
    _, arch, _ = load_network(tmp_path / "plain.pth", expected)
    assert arch.args["group_sizes"] == [16] * 8


@pytest.mark.parametrize("lost", ["upconv.weight", "last_conv.weight", "blocks.3.0.norm.weight"])
def test_weights_with_a_part_missing_are_refused(tmp_path: Path, lost: str) -> None:
    weights = _network(upscale=2, **SMALL).state_dict()
    del weights[lost]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(KdpError, match=r"part\.pth"):
        load_network(tmp_path / "part.pth")


def test_weights_of_an_unknown_architecture_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(KdpError, match=r"linear\.pth was not written by kdp"):
        load_network(tmp_path / "linear.pth")


class _Harm:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    path, target = tmp_path / "harm.pth", tmp_path / "harm was done"
    content = {"params": {"w": torch.zeros(1)}, "more": _Harm(target)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(KdpError, match=r"harm\.pth.*refused"):
        load(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists(), "the file does no harm, so that this test shows nothing"


@pytest.mark.parametrize("size", range(0, 1200, 50))
def test_a_broken_file_of_the_old_format_is_named(tmp_path: Path, size: int) -> None:
    path = tmp_path / "old.pth"
    torch.save({"w": torch.zeros(300)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(KdpError, match=r"old\.pth"):
        load(path)


@pytest.mark.parametrize("size", [0, 10, 1000, 5000])
def test_a_truncated_file_is_named(tmp_path: Path, size: int) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "cut.pth"
    save(whole, Artifact(_network(**TINY).state_dict(), ARCH))
    path.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(KdpError, match=r"cut\.pth"):
        load(path)


_EMPTY: dict[str, Any] = {
    "format": "kdp",
    "version": 2,
    "arch": None,
    "params": {},
    "record": {},
}
"""The keys of every artifact."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({}, "no weights"),
        ({"params": {}}, "no weights"),
        ({"params": 3}, "no weights"),
        ({"epoch": 3}, "not tensors"),
        ({"format": "kdp", "version": 3}, "version 3; this kdp reads up to 2: update kdp"),
        ({"format": "kdp"}, "version None"),
        ({"format": "kdp", "version": 1}, "incomplete"),
        ({**_EMPTY, "record": {"seed": 3}}, "damaged"),
        ({**_EMPTY, "arch": "catanet"}, "damaged"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(KdpError, match=rf"odd\.pth.*{message}"):
        load(tmp_path / "odd.pth")


def test_torchscript_is_called_what_it_is(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "net.ts")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            KdpError, match=r"net\.ts is TorchScript, which kdp writes but does not read"
        ):
            load(tmp_path / "net.ts")


def test_a_setting_in_the_place_of_a_file_is_answered(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match=r"does not exist; a setting is changed by --set "):
        load(tmp_path / "seed=3")


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text("not a checkpoint\n")
    with pytest.raises(KdpError, match=r"notes\.pth"):
        load(tmp_path / "notes.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match=r"gone\.pth does not exist"):
        load(tmp_path / "gone.pth")


def test_a_file_of_masks_is_no_network(tmp_path: Path) -> None:
    masks = {"blocks.0.tab_heads": torch.tensor([True, False])}
    save(tmp_path / "masks.pth", Artifact({}, ARCH, Provenance("prune"), {"masks": masks}))
    with pytest.raises(KdpError, match=r"masks\.pth holds no network.*kdp prune"):
        load_network(tmp_path / "masks.pth")


def test_an_artifact_comes_back_as_it_was(tmp_path: Path) -> None:
    model = _network(**TINY)
    masks = {"blocks.0.tab_heads": torch.tensor([True, False])}
    record = make_record("train", {"seed": 3}, metrics={"set5": {"psnr": 36.5}})
    save(tmp_path / "a.pth", Artifact(model.state_dict(), ARCH, record, {"masks": masks}))
    loaded, arch, artifact = load_network(tmp_path / "a.pth", ARCH)
    assert (arch, artifact.record) == (ARCH, record)
    assert artifact.extra.keys() == {"masks"}
    assert torch.equal(artifact.extra["masks"]["blocks.0.tab_heads"], torch.tensor([True, False]))
    assert _same(loaded.state_dict(), model.state_dict())


def test_a_network_of_another_program_comes_back_as_it_was(tmp_path: Path) -> None:
    arch = Arch(
        "net.py:build",
        {"depth": 2},
        source=CodeSource("net.py:build", "0" * 64),
        shapes={"fc1.weight": (6, 4)},
        attributes={"attn": {"num_heads": 3, "window": (2, 4)}},
        groups=({"name": "attn", "units": 3},),
    )
    save(tmp_path / "a.pth", Artifact({"w": torch.ones(1)}, arch))
    assert load(tmp_path / "a.pth").arch == arch
    assert Arch.from_plain(json.loads(json.dumps(arch.plain()))) == arch


def test_a_built_in_network_is_name_and_arguments(tmp_path: Path) -> None:
    save(tmp_path / "a.pth", Artifact({"w": torch.ones(1)}, Arch("catanet", {"upscale": 2})))
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert content["version"] == 2
    assert content["arch"] == {"name": "catanet", "args": {"upscale": 2}}


def test_a_file_of_version_1_is_read(tmp_path: Path) -> None:
    old = {
        "stage": "prune",
        "command": "kdp prune",
        "config": {"seed": 5},
        "seed": 5,
        "versions": {"kdp": "0.1"},
        "device": "cpu",
        "git_commit": None,
        "parents": [{"path": "t.pth", "sha256": "0" * 64, "record": {}}],
        "metrics": {"macs": 7},
        "time": {"finished": 1.5, "seconds": None},
    }
    content = {**_EMPTY, "version": 1, "params": {"w": torch.ones(2)}, "record": old, "masks": {}}
    torch.save({**content, "arch": {"name": "catanet", "args": TINY}}, tmp_path / "old.pth")
    artifact = load(tmp_path / "old.pth")
    assert (artifact.arch, artifact.extra) == (ARCH, {"masks": {}})
    assert artifact.record is not None
    assert artifact.record.parents == (Parent("t.pth", "0" * 64),)
    assert artifact.record.time == RunTime(1.5)
    assert artifact.record.plain() == old


@pytest.mark.parametrize("path", sorted((ROOT / "weights").glob("*.pth")), ids=lambda p: p.name)
def test_the_committed_weights_of_version_1_are_read(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    assert content["version"] == 1, "rewritten: keep a file of version 1 for this test"
    model, _, artifact = load_network(path)
    assert _same(model.state_dict(), content["params"])
    assert artifact.record is not None
    assert artifact.record.plain() == content["record"]


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_record_leads_back_to_the_teacher(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.pth" for name in ("teacher", "pruned", "finetuned")]
    for stage, path, parents in zip(
        ("train", "prune", "finetune"), paths, ([], paths[:1], paths[1:2]), strict=True
    ):
        params = {"w": torch.full((2,), len(str(path)))}
        save(path, Artifact(params, ARCH, make_record(stage, {"seed": 5}, parents)))
    record = load(paths[-1]).record
    chain = []
    for path in reversed(paths[:-1]):
        (parent,) = record.parents
        assert parent.sha256 == sha256(path)
        record = parent.record
        chain.append(record.stage)
    assert chain == ["prune", "train"]
    assert record.parents == ()
    assert record.seed == 5
    assert record.versions.keys() == {"kdp", "torch", "python"}


def test_a_file_of_another_program_may_have_led_here(tmp_path: Path) -> None:
    """Ultralytics pickles whole networks, which kdp reads without unpickling them."""
    torch.save({"model": _Harm(tmp_path / "harm was done")}, tmp_path / "theirs.pt")
    (parent,) = make_record("prune", {}, [tmp_path / "theirs.pt"]).parents
    assert (parent.record, len(parent.sha256)) == (None, 64)


def test_a_stage_of_an_earlier_version_has_its_name_of_today() -> None:
    parent = {"path": "index.pth", "sha256": "0", "record": {"stage": "teach"}}
    record = Provenance.from_plain({"stage": "teach", "parents": [parent]})
    assert record.stage == "cache-targets"
    assert record.parents[0].record == Provenance("cache-targets")


def test_a_file_that_led_here_twice_is_recorded_once(tmp_path: Path) -> None:
    teacher, pruned, tuned = (tmp_path / f"{name}.pth" for name in ("teacher", "pruned", "tuned"))
    for path, parents in ((teacher, []), (pruned, [teacher]), (tuned, [pruned, teacher])):
        record = make_record("train", {"seed": 5}, parents)
        save(path, Artifact({"w": torch.full((2,), len(str(path)))}, ARCH, record))
    first, second = load(tuned).record.parents
    assert first.record.parents[0].record.seed == 5
    assert second.sha256 == first.record.parents[0].sha256
    assert second.record == Provenance("train", first.record.command)
    plain = torch.load(tuned, weights_only=True)["record"]["parents"][1]["record"]
    assert plain.keys() == {"stage", "command"}


@pytest.mark.parametrize("fault", ["os.fsync", "os.replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    path = tmp_path / "a.pth"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fault, fail)
    with pytest.raises(KdpError, match=r"a\.pth: no space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_past_the_limit_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save(path, Artifact({"w": torch.ones(3)}, ARCH))
    before = path.read_bytes()
    done = _python(
        f"""
        import pathlib, resource, torch
        from kdp.artifacts import Artifact, save
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        save(pathlib.Path({str(path)!r}), Artifact({{"w": torch.ones(100_000)}}))
        """
    )
    assert "KdpError: cannot write" in done.stderr
    assert "no space left" in done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.pth"
    with pytest.raises(KdpError, match=r"cannot write .*a\.pth"):
        write_atomic(path, b"new")
    with pytest.raises(KdpError, match=r"cannot write .*a\.pth"), file_lock(path):
        pass


def test_a_new_file_has_the_rights_of_any_other(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_second_run_may_not_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "weights" / "a.pth"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD.format(path=str(path))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(KdpError, match=r"another run is writing .*a\.pth"), file_lock(path):
        pass
    holder.kill()  # A killed run holds nothing.
    holder.wait()
    with file_lock(path):
        pass
    assert not any(path.parent.iterdir())


_HOLD = """
import pathlib
from kdp.files import file_lock
with file_lock(pathlib.Path({path!r})):
    print("held", flush=True)
    input()
"""


def _python(code: str) -> subprocess.CompletedProcess[str]:
    lines = [line.removeprefix(" " * 8) for line in code.splitlines()]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("about", "record", "precision"),
    [
        ({}, Provenance("export"), "fp32"),
        (
            {"kdp": "0.1", "precision": "int8", "source": {"name": "a.pth", "sha256": "0" * 64}},
            Provenance("export", versions={"kdp": "0.1"}, parents=(Parent("a.pth", "0" * 64),)),
            "int8",
        ),
    ],
)
def test_an_exported_file_has_a_record(
    about: dict[str, Any], record: Provenance, precision: str
) -> None:
    """Files of earlier versions lack some of the metadata."""
    network = OnnxNetwork.__new__(OnnxNetwork)  # without a session, which the record needs not
    nn.Module.__init__(network)
    network.about = about
    assert (network.record, network.precision) == (record, precision)
