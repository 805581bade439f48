"""Damaged files and numbers that are not finite are named, at loading and before writing."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.serialization import set_crc32_options

from kdp.artifacts import Artifact, load, save
from kdp.checksums import DamagedFileError
from kdp.errors import KdpError
from kdp.finite import is_finite, outputs_finite
from kdp.models.loading import read_weights
from kdp.types import Arch

ARCH = Arch("mask_classifier", {})
NAN, INF = float("nan"), float("inf")


def _weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"layer{i}.weight": torch.randn(40, 20, generator=generator) for i in range(6)}


def _ours(path: Path) -> None:
    save(path, Artifact(_weights(), ARCH))


def _foreign(path: Path) -> None:
    torch.save({"params": _weights()}, path)


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _outcome(path: Path) -> str:
    """What loading a file comes to; exceptions other than `KdpError` pass."""
    try:
        params = load(path).params
    except KdpError as error:
        message = str(error)
        return "named" if str(path) in message and "\n" not in message else message
    same = all(torch.equal(params[name], tensor) for name, tensor in _weights().items())
    return "harmless" if same else "wrong"


@pytest.mark.parametrize(("write", "least"), [(_ours, 396), (_foreign, 350)])
def test_flipped_bits_are_named(tmp_path: Path, write: Callable[[Path], None], least: int) -> None:
    """In a foreign file, flips in the padding between members are not noticed and do no harm."""
    path = tmp_path / "flipped.pth"
    write(path)
    content, bits = path.read_bytes(), random.Random(5)
    outcomes = []
    for _ in range(400):
        path.write_bytes(_flipped(content, bits.randrange(8 * len(content))))
        outcomes.append(_outcome(path))
    assert set(outcomes) <= {"named", "harmless"}
    assert outcomes.count("named") >= least


@pytest.mark.parametrize("suffix", ["pth", "pt"])
@pytest.mark.parametrize("write", [_ours, _foreign])
def test_a_flipped_weight_is_called_damage(
    tmp_path: Path, write: Callable[[Path], None], suffix: str
) -> None:
    path = tmp_path / f"flipped.{suffix}"
    write(path)
    content = path.read_bytes()
    place = content.index(_weights()["layer3.weight"].numpy().tobytes())
    path.write_bytes(_flipped(content, 8 * place + 77))
    with pytest.raises(DamagedFileError, match=rf"flipped\.{suffix} is damaged"):
        read_weights(path)


def test_a_flipped_checkpoint_of_a_training_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    save(path, Artifact({}, extra={"training": {"model": _weights(), "step": 3}}))
    path.write_bytes(_flipped(path.read_bytes(), 8 * 9000))
    with pytest.raises(KdpError, match=r"checkpoint\.pth is damaged"):
        load(path)


def _with_more(path: Path, names: Callable[[str], list[str]]) -> None:
    """An archive that also holds zeros under other names of some members."""
    buffer = io.BytesIO()
    torch.save({"params": _weights()}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            for other in names(name):
                target.writestr(other, bytes(len(source.read(name))))
            target.writestr(name, source.read(name))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", ["pth", "pt"])
@pytest.mark.parametrize(
    "names",
    [
        lambda name: [name] if name.endswith("data/0") else [],
        lambda name: [name] if name.endswith("data.pkl") else [],
        lambda name: [name.upper()] if "/data/" in name else [],
    ],
    ids=["storage", "pickle", "upper case"],
)
def test_members_of_one_name_are_refused(
    tmp_path: Path, names: Callable[[str], list[str]], suffix: str
) -> None:
    path = tmp_path / f"twice.{suffix}"
    _with_more(path, names)
    with pytest.raises(KdpError, match=rf"twice\.{suffix} is (damaged|truncated)"):
        read_weights(path)
    with pytest.raises(KdpError, match=r"archive holds .* more than once"):
        load(path)


def test_other_programs_read_files_with_a_checksum(tmp_path: Path) -> None:
    _ours(tmp_path / "a.pth")
    params = torch.load(tmp_path / "a.pth", weights_only=True, mmap=True)["params"]
    assert torch.equal(params["layer0.weight"], _weights()["layer0.weight"])
    assert zipfile.ZipFile(tmp_path / "a.pth").testzip() is None


def test_files_that_torch_wrote_without_checksums_load(tmp_path: Path) -> None:
    set_crc32_options(False)
    try:
        _foreign(tmp_path / "a.pth")
    finally:
        set_crc32_options(True)
    assert _outcome(tmp_path / "a.pth") == "harmless"


def _with(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    tensor = torch.zeros(5, 5, dtype=dtype)
    tensor[3, 2] = value
    return tensor


CONTENTS: list[tuple[dict[str, Any], str]] = [
    ({"params": {"fc.weight": _with(NAN)}}, "fc.weight"),
    ({"params": {"bn.running_var": _with(-INF, torch.float16)}}, "bn.running_var"),
    ({"scores": {"blocks.0": _with(NAN)}}, "scores blocks.0"),
    ({"parts": {"blocks.1": _with(INF, torch.float64)}}, "parts blocks.1"),
    ({"targets": {"output": _with(NAN)}}, "targets output"),
    ({"training": {"model": {"w": _with(NAN)}}}, "model w"),
    ({"training": {"average": {"w": _with(INF)}}}, "average w"),
    ({"training": {"best": {"params": {"w": _with(NAN)}}}}, "best w"),
]


@pytest.mark.parametrize(("content", "name"), CONTENTS, ids=[name for _, name in CONTENTS])
def test_numbers_that_are_not_finite_are_neither_written_nor_read(
    tmp_path: Path, content: dict[str, Any], name: str
) -> None:
    path = tmp_path / "a.pth"
    extra = dict(content)
    artifact = Artifact(extra.pop("params", {}), ARCH, None, extra)
    with pytest.raises(KdpError, match=rf"a\.pth was not written: {name} is not finite"):
        save(path, artifact)
    assert not path.exists()
    whole = {"format": "kdp", "version": 2, "arch": None, "params": {}, "record": {}, **content}
    torch.save(whole, path)
    with pytest.raises(KdpError, match=rf"a\.pth holds values that are not finite .*in {name}"):
        load(path)


def test_large_numbers_are_finite() -> None:
    """Their sum is not."""
    assert is_finite(torch.full((1000,), 6e4, dtype=torch.float16))
    assert is_finite(torch.full((8,), 3e38))
    assert not is_finite(torch.tensor([INF, -INF]))


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x, x], lambda x: {"out": (x,)}])
def test_outputs_that_are_not_finite_are_refused(wrap: Callable[[Tensor], Any]) -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return wrap(1 / x)

    model = Network()
    with outputs_finite(model, "net.pth"):
        model(torch.ones(2))
        with pytest.raises(KdpError, match=r"net\.pth: the network's output is not finite"):
            model(torch.zeros(2))
    model(torch.zeros(2))
