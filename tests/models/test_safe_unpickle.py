"""Reading checkpoints without running what they pickle."""

from __future__ import annotations

import codecs
import functools
import operator
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdp.errors import KdpError
from kdp.models.safe_unpickle import OpaqueObject, StoredTensor, load_without_code
from kdp.models.ultralytics_file import read_ultralytics

# Reading without making anything


class Hostile:
    """Pickled as an arbitrary call."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.call

    def __call__(self) -> None:
        """Makes the object callable, which the pickler requires."""


def hostile(mark: Path) -> dict[str, Any]:
    """Objects that would create a file if unpickled."""
    command, code = f"touch {mark}", f"open({str(mark)!r}, 'w')"
    rebuild = torch._utils._rebuild_tensor_v2
    return {
        "system": Hostile(os.system, command),
        "eval": Hostile(eval, code),
        "exec": Hostile(exec, code),
        "import": Hostile(__import__, "os"),
        "getattr": Hostile(getattr, Hostile(__import__, "os"), "system"),
        "called result": Hostile(Hostile(getattr, Hostile(__import__, "os"), "system"), command),
        "partial": Hostile(functools.partial(os.system, command)),
        "partial's state": functools.partial(os.system, command),
        "methodcaller": Hostile(
            operator.methodcaller("system", command), Hostile(__import__, "os")
        ),
        "attrgetter": Hostile(operator.attrgetter("system"), Hostile(__import__, "os")),
        "nested": [{"deep": (Hostile(map, Hostile(os.system, command), [1]),)}],
        "hub": Hostile(torch.hub.load, "owner/name", "model"),
        "torch.load": Hostile(torch.load, "another.pt"),
        "as a key": {Hostile(os.system, command): 1},
        "state": Hostile(dict, state={"__class__": Hostile(os.system, command)}),
        "typed": Hostile(torch._tensor._rebuild_from_type_v2, os.system, Tensor, (command,), {}),
        "v3": Hostile(torch._utils._rebuild_tensor_v3, Hostile(os.system, command)),
        "wrapper": Hostile(torch._utils._rebuild_wrapper_subclass, Hostile(eval, code)),
        "rebuild": Hostile(rebuild, Hostile(os.system, command), 0, (1,), (1,), False, {}),
        "rebuild's hooks": Hostile(rebuild, os.system, command, os.system, command, False, {}),
        "parameter": Hostile(torch._utils._rebuild_parameter, Hostile(eval, code), True, {}),
    }


NAMES = sorted(hostile(Path("mark")))
REFUSED = {"rebuild", "rebuild's hooks", "parameter"}


@pytest.mark.parametrize("name", NAMES)
def test_no_foreign_code_is_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, mark = tmp_path / "bad.pt", tmp_path / "mark"
    torch.save({"model": hostile(mark)[name]}, path)
    events = watch(monkeypatch)
    if name in REFUSED:
        with pytest.raises(KdpError, match="truncated or not a checkpoint"):
            load_without_code(path)
    else:
        only_inert(load_without_code(path))
    with pytest.raises(KdpError):
        read_ultralytics(path)
    assert events == []
    assert not mark.exists()


def test_pickle_itself_would_run_the_hostile_objects(tmp_path: Path) -> None:
    """Otherwise the other tests would prove nothing."""
    mark = tmp_path / "mark"
    for name in ("system", "eval", "called result", "partial", "methodcaller"):
        pickle.loads(pickle.dumps(hostile(mark)[name]))
        assert mark.exists(), name
        mark.unlink()


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Audit events of imports by pickle, commands and executed code, from here on."""
    events: list[str] = []
    watched = {"pickle.find_class", "os.system", "subprocess.Popen", "exec", "compile", "import"}
    codecs.lookup("cp437")  # which the first zip file in a process imports
    active = [True]

    def hook(event: str, args: Any) -> None:
        if active[0] and event in watched:
            events.append(f"{event} {args}")

    sys.addaudithook(hook)
    _HOOKS.append(active)
    return events


_HOOKS: list[list[bool]] = []


@pytest.fixture(autouse=True)
def unwatch() -> Any:
    """Disables the audit hooks, which cannot be removed."""
    yield
    for active in _HOOKS:
        active[0] = False
    _HOOKS.clear()


def only_inert(value: Any) -> None:
    """Assert that a value consists of plain values and opaque records."""
    if isinstance(value, (list, tuple, set)):
        for item in value:
            only_inert(item)
    elif isinstance(value, dict):
        for item in [*value, *value.values()]:
            only_inert(item)
    elif isinstance(value, OpaqueObject):
        only_inert((value.args, value.state))
    elif isinstance(value, type):
        assert (
            issubclass(value, (OpaqueObject, StoredTensor))
            or value.__module__ == "kdp.models.safe_unpickle"
        )
    else:
        assert value is None or type(value) in (bool, int, float, str, bytes, StoredTensor)


def opcodes(path: Path, data: bytes, **records: bytes) -> Path:
    """A file in torch's zip format with this pickle inside."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in records.items():
            archive.writestr(f"archive/data/{name}", content)
    return path


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    "data",
    [
        REBUILD + b"N}(S'__defaults__'\nK\x01u\x86b.",  # set an attribute of what makes tensors
        REBUILD + b"}(S'tensor'\ncos\nsystem\nub.",
        b"ccollections\nOrderedDict\nN}(S'keys'\ncos\nsystem\nu\x86b.",
        b"ctorch._utils\n_rebuild_parameter\nK\x01\x85R.",
        REBUILD + b")\x81.",  # made without arguments
        b"(S'storage'\nctorch\nFloatStorage\nS'../../data.pkl'\nS'cpu'\nK\x01tQ.",
        b"(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nK\x01tQ.",
        b"cos\nsystem\nQ.",
        b"\x82\x01.",  # the extension registry
        b"cos\nsystem.x\n(S'a'\ntR",  # no end
        b"}r\xff\xff\xff\x7f.",  # a memo of gigabytes
        b"\x96" + b"\xff" * 6 + b"\0\0.",  # an array of terabytes
    ],
)
def test_opcodes_that_no_pickler_writes_are_rejected(data: bytes, tmp_path: Path) -> None:
    before = dict(vars(StoredTensor))
    with pytest.raises(KdpError, match="truncated or not a checkpoint"):
        load_without_code(opcodes(tmp_path / "bad.pt", data, **{"0": b"\0" * 4}))
    assert dict(vars(StoredTensor)) == before


def test_names_of_modules_are_not_looked_up(tmp_path: Path) -> None:
    data = b"(cbuiltins\neval\ncno_such_module\nf\nccollections\nOrderedDict\ncos\npath.join\nt."
    kinds = load_without_code(opcodes(tmp_path / "a.pt", data))
    assert [getattr(kind, "origin", None) for kind in kinds] == [
        "builtins.eval",
        "no_such_module.f",
        None,
        "os.path.join",
    ]


@pytest.mark.parametrize("size", ["(9,)", "(2, 3)", "(-1,)", "(1 << 60, 1)"])
def test_a_tensor_that_does_not_fit_its_storage_is_rejected(size: str, tmp_path: Path) -> None:
    class Odd:
        def __reduce__(self) -> Any:
            shape = eval(size)
            storage = torch.storage.TypedStorage(4, dtype=torch.float32, _internal=True)
            args = (storage, 0, shape, (0,) * len(shape), False, {})
            return torch._utils._rebuild_tensor_v2, args

    torch.save(Odd(), tmp_path / "odd.pt")
    with pytest.raises(KdpError, match="truncated or not a checkpoint"):
        load_without_code(tmp_path / "odd.pt")


def test_tensors_of_every_type_and_views_are_loaded(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    tensors = {
        "view": whole[2:8].view(2, 3).T,
        "parameter": torch.nn.Parameter(whole.half()),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7),
        **{str(dtype): torch.ones(3, dtype=dtype) for dtype in (torch.bool, torch.bfloat16)},
        **{str(dtype): torch.ones(3, dtype=dtype) for dtype in (torch.int8, torch.float64)},
    }
    torch.save(tensors, tmp_path / "a.pt")
    loaded = load_without_code(tmp_path / "a.pt")
    for name, tensor in tensors.items():
        read = loaded[name].tensor()
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor), name


def test_garbage_is_a_one_line_error(tmp_path: Path) -> None:
    good = tmp_path / "good.pt"
    torch.save({"model": torch.ones(1000)}, good)
    torch.save({"a": 1}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "cut.pt").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "empty.pt").touch()
    for name in ("old", "cut", "text", "empty", "missing"):
        with pytest.raises(KdpError) as caught:
            read_ultralytics(tmp_path / f"{name}.pt")
        assert "\n" not in str(caught.value)
    for content in ([1], {"model": 1}, {"model": {"a": torch.ones(1)}}, {"a": 1}):
        torch.save(content, good)
        with pytest.raises(KdpError, match="no network that Ultralytics wrote"):
            read_ultralytics(good)
