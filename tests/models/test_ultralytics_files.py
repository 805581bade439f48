"""Ultralytics beside kdp: its import, its files read without making its objects, and written."""

from __future__ import annotations

import codecs
import functools
import importlib.metadata
import importlib.util
import json
import operator
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from kdp.errors import KdpError
from kdp.models.safe_unpickle import OpaqueObject, StoredTensor, load_without_code
from kdp.models.torchvision_shim import install
from kdp.models.ultralytics import NEEDED, import_ultralytics
from kdp.models.ultralytics_file import read_ultralytics, write_ultralytics
from kdp.types import Arch

INSTALLED = importlib.util.find_spec("ultralytics") is not None
needs_ultralytics = pytest.mark.skipif(not INSTALLED, reason="ultralytics is not installed")
CLASSES = ["red cell", "white cell", "platelet"]
YAML = "path: {folder}\ntrain: images\nval: images\nnames: {names}\n"


def run(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, in an empty folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("YOLO_")}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, sorted(cwd.glob("*")))],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# The import


ALONE = """
import os, socket, sys
def refuse(*args, **kwargs): raise OSError("no network here")
socket.socket = type("Blocked", (socket.socket,), {"__init__": refuse})
socket.create_connection = socket.getaddrinfo = refuse
def seen(event, args): assert not event.startswith("socket."), event
sys.addaudithook(seen)
import cv2, numpy, torch
os.environ.pop("OMP_NUM_THREADS", None)
torch.set_num_threads(2); cv2.setNumThreads(2)
before = dict(os.environ)
from kdp.models.ultralytics import import_ultralytics
assert "ultralytics" not in sys.modules
model = import_ultralytics("nn.tasks").DetectionModel("yolo11n.yaml", nc=3, verbose=False)
for name in ("loss", "nms", "metrics"):
    import_ultralytics(f"utils.{name}")
assert torch.get_num_threads() == 2 and cv2.getNumThreads() == 2
changed = {key for key in os.environ if os.environ[key] != before.get(key)}
assert {key for key in changed if not key.startswith("YOLO_")} == set(), changed
assert "torchvision" not in sys.modules
folder = os.environ["YOLO_CONFIG_DIR"]
assert os.path.isdir(folder)
open("folder", "w").write(folder)
"""


@needs_ultralytics
def test_the_import_is_silent_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    done = run(ALONE, tmp_path, HOME=str(tmp_path))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert not Path((tmp_path / "folder").read_text()).exists()


@needs_ultralytics
def test_a_folder_of_the_user_is_kept(tmp_path: Path) -> None:
    own = tmp_path / "own"
    done = run(
        "import kdp.models.ultralytics as u; u.import_ultralytics()",
        tmp_path,
        YOLO_CONFIG_DIR=str(own),
    )
    assert done.returncode == 0, done.stderr
    assert (own / "Ultralytics").is_dir()


@pytest.mark.parametrize("version", [None, "8.3.200", "8.4.139", "8.5.0"])
def test_missing_or_of_another_version(
    version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    for name in [name for name in sys.modules if name.split(".")[0] == "ultralytics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.metadata, "version", told)
    with pytest.raises(KdpError, match=r"pip install 'ultralytics>=") as caught:
        import_ultralytics("nn.tasks")
    assert str(caught.value) == NEEDED


def test_a_package_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "ultralytics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "8.4.190")
    with pytest.raises(KdpError, match=r"pip install 'ultralytics>="):
        import_ultralytics("nn.tasks")


# Torchvision


@functools.cache
def broken_torchvision() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        return False
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True)
    return done.returncode != 0


def test_the_stand_in_is_announced_once_and_only_where_needed(tmp_path: Path) -> None:
    code = """
from kdp.log import set_up_logging
from kdp.models.torchvision_shim import install
set_up_logging()
install()
install()
"""
    if importlib.util.find_spec("torchvision") is not None:
        code += "import torchvision"
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stand-in") == broken_torchvision()
    assert len(done.stderr.splitlines()) == broken_torchvision()


def test_it_mends_an_import_that_failed_before(tmp_path: Path) -> None:
    if not broken_torchvision():
        pytest.skip("torchvision is absent or loads")
    code = """
try: import torchvision
except RuntimeError: pass
from kdp.models.torchvision_shim import install
install()
import torchvision.ops
"""
    assert run(code, tmp_path).returncode == 0


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images of one box each, as Ultralytics reads them; the path of the YAML file."""
    folder = tmp_path / "data"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(4):
        image = rng.integers(0, 80, (64, 64, 3), dtype=np.uint8)
        image[16:40, 8 + 4 * i : 32 + 4 * i] = 200
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        box = f"{i % 3} {(20 + 4 * i) / 64} {28 / 64} {24 / 64} {24 / 64}\n"
        (folder / "labels" / f"{i}.txt").write_text(box)
    (tmp_path / "data.yaml").write_text(YAML.format(folder=folder, names=CLASSES))
    return tmp_path / "data.yaml"


def validate(model: Any, data: Path, project: Path) -> list[float]:
    """Every metric of plain Ultralytics."""
    options = {"imgsz": 64, "batch": 2, "workers": 0, "plots": False, "verbose": False}
    found = model.val(data=str(data), project=str(project), device="cpu", **options)
    return [found.box.map, found.box.map50, *found.box.maps]


@needs_ultralytics
def test_plain_ultralytics_validates_beside_it(images: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    install()
    model = import_ultralytics().YOLO("yolo11n.yaml")
    model.model = import_ultralytics("nn.tasks").DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    assert len(validate(model, images, tmp_path / "runs")) == 5
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    import torchvision

    assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5).tolist() == [1, 2]
    torch.set_num_threads(threads)


# Reading without making anything


class Hostile:
    """Pickled as a call of anything with anything."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.call

    def __call__(self) -> None:
        """What it makes may be called, says the pickler's own check."""


def hostile(mark: Path) -> dict[str, Any]:
    """Objects that would leave a file behind were any of them made."""
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
def test_nothing_foreign_is_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_hostile_ones_are_hostile(tmp_path: Path) -> None:
    """That pickle itself would run them."""
    mark = tmp_path / "mark"
    for name in ("system", "eval", "called result", "partial", "methodcaller"):
        pickle.loads(pickle.dumps(hostile(mark)[name]))
        assert mark.exists(), name
        mark.unlink()


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Python's audit hook sees of imports through pickle, commands and code, from here on."""
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
    """An audit hook stays for ever; it is told to look away."""
    yield
    for active in _HOOKS:
        active[0] = False
    _HOOKS.clear()


def only_inert(value: Any) -> None:
    """That there is nothing but plain values and records."""
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
    """A file of torch's format with this pickle inside."""
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
def test_opcodes_that_no_pickler_writes(data: bytes, tmp_path: Path) -> None:
    before = dict(vars(StoredTensor))
    with pytest.raises(KdpError, match="truncated or not a checkpoint"):
        load_without_code(opcodes(tmp_path / "bad.pt", data, **{"0": b"\0" * 4}))
    assert dict(vars(StoredTensor)) == before


def test_names_of_modules_are_not_looked_up(tmp_path: Path) -> None:
    data = b"(cbuiltins\neval\ncno_such_module\nf\nccollections\nOrderedDict\ncos\npath.join\nt."
    found = load_without_code(opcodes(tmp_path / "a.pt", data))
    assert [getattr(kind, "origin", None) for kind in found] == [
        "builtins.eval",
        "no_such_module.f",
        None,
        "os.path.join",
    ]


@pytest.mark.parametrize("size", ["(9,)", "(2, 3)", "(-1,)", "(1 << 60, 1)"])
def test_a_tensor_of_another_size_than_its_numbers(size: str, tmp_path: Path) -> None:
    class Odd:
        def __reduce__(self) -> Any:
            shape = eval(size)
            storage = torch.storage.TypedStorage(4, dtype=torch.float32, _internal=True)
            args = (storage, 0, shape, (0,) * len(shape), False, {})
            return torch._utils._rebuild_tensor_v2, args

    torch.save(Odd(), tmp_path / "odd.pt")
    with pytest.raises(KdpError, match="truncated or not a checkpoint"):
        load_without_code(tmp_path / "odd.pt")


def test_tensors_of_all_kinds_and_views(tmp_path: Path) -> None:
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
    found = load_without_code(tmp_path / "a.pt")
    for name, tensor in tensors.items():
        read = found[name].tensor()
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor), name


def test_garbage_is_refused_in_a_line(tmp_path: Path) -> None:
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


# Files of Ultralytics


def network(name: str = "yolo11n.yaml", seed: int = 0, kind: str = "DetectionModel") -> Any:
    """A network of Ultralytics with numbers that half precision can hold."""
    torch.manual_seed(seed)
    model = getattr(import_ultralytics("nn.tasks"), kind)(name, nc=3, verbose=False)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.add_(torch.rand_like(buffer) / 8)
    return model.half().float()


def equal(found: dict[str, Tensor], model: Any) -> bool:
    wanted = model.float().state_dict()
    assert list(found) == list(wanted)
    floats = (t for t in found.values() if t.is_floating_point())
    assert all(t.dtype == torch.float32 for t in floats)
    return all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


@needs_ultralytics
@pytest.mark.parametrize("half", [False, True])
def test_a_finished_training(half: bool, tmp_path: Path) -> None:
    model = network("yolo11s.yaml")
    model.names = dict(enumerate(CLASSES))
    saved = model.half() if half else model
    content = {"model": saved, "ema": None, "train_args": {"imgsz": 330}, "epoch": -1}
    torch.save(content, tmp_path / "best.pt")
    params, arch = read_ultralytics(tmp_path / "best.pt")
    assert equal(params, model)
    args = {"scale": "s", "classes": CLASSES, "image_size": 352}
    assert arch == Arch("yolo11", args)


@needs_ultralytics
def test_averaged_weights_go_first(tmp_path: Path) -> None:
    raw, averaged = network(seed=1), network(seed=2)
    for content in ({"model": raw, "ema": averaged}, {"model": None, "ema": averaged}):
        torch.save({**content, "train_args": {}}, tmp_path / "last.pt")
        params, arch = read_ultralytics(tmp_path / "last.pt")
        assert equal(params, averaged)
        assert arch.args["image_size"] == 640


@needs_ultralytics
def test_what_ultralytics_saves_itself(tmp_path: Path) -> None:
    model = import_ultralytics().YOLO("yolo11n.yaml")
    model.model = network()
    model.save(tmp_path / "own.pt")
    params, arch = read_ultralytics(tmp_path / "own.pt")
    assert equal(params, model.model)
    assert arch.args == {"scale": "n", "classes": ["0", "1", "2"], "image_size": 640}


@needs_ultralytics
@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("yolo11n-seg.yaml", "SegmentationModel", "holds a SegmentationModel"),
        ("yolo11n-obb.yaml", "OBBModel", "holds a OBBModel"),
        ("yolov8n.yaml", "DetectionModel", "holds yolov8n, which is not YOLO11"),
        ("yolo12n.yaml", "DetectionModel", "holds yolo12n, which is not YOLO11"),
        ("yolo26n.yaml", "DetectionModel", "yolo26n with an end-to-end head"),
    ],
)
def test_other_networks_are_refused(name: str, kind: str, reason: str, tmp_path: Path) -> None:
    torch.save({"model": network(name, kind=kind), "ema": None}, tmp_path / "other.pt")
    with pytest.raises(KdpError, match=reason):
        read_ultralytics(tmp_path / "other.pt")


@needs_ultralytics
def test_a_fused_network_is_refused(tmp_path: Path) -> None:
    torch.save({"model": network().eval().fuse(verbose=False)}, tmp_path / "fused.pt")
    with pytest.raises(KdpError, match="fused"):
        read_ultralytics(tmp_path / "fused.pt")


@needs_ultralytics
def test_the_scale_may_be_in_the_name_of_the_file(tmp_path: Path) -> None:
    model = network("yolo11s.yaml")
    model.yaml = {key: value for key, value in model.yaml.items() if key != "scale"}
    model.yaml["yaml_file"] = "cells.yaml"
    torch.save({"model": model}, tmp_path / "yolo11s_cells.pt")
    assert read_ultralytics(tmp_path / "yolo11s_cells.pt")[1].args["scale"] == "s"
    os.rename(tmp_path / "yolo11s_cells.pt", tmp_path / "cells.pt")
    with pytest.raises(KdpError, match="does not say its scale"):
        read_ultralytics(tmp_path / "cells.pt")


# Writing


@needs_ultralytics
def test_what_was_written_reads_the_same(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "weights" / "cells.pt"
    state = torch.get_rng_state()
    write_ultralytics(path, model.state_dict(), "n", CLASSES, 320, {"mAP50": 0.5})
    assert torch.equal(torch.get_rng_state(), state)
    params, arch = read_ultralytics(path)
    assert equal(params, model)
    assert arch.args == {"scale": "n", "classes": CLASSES, "image_size": 320}
    assert load_without_code(path)["train_metrics"] == {"mAP50": 0.5}


@needs_ultralytics
def test_other_weights_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "cells.pt"
    path.write_text("old")
    with pytest.raises(KdpError, match="not a full yolo11s"):
        write_ultralytics(path, network().state_dict(), "s", CLASSES, 320, {})
    with pytest.raises(KdpError, match=r"end in \.pt"):
        write_ultralytics(tmp_path / "a.pth", network().state_dict(), "n", CLASSES, 320, {})
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["cells.pt"]


ELSEWHERE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "kdp": raise ImportError("kdp is not here")
sys.meta_path.insert(0, Blocked())
import json, pathlib, torch
stand_in = {stand_in}
if stand_in:
    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"): torch.library.define("torchvision::" + name, schema)
    import torchvision
    from ultralytics.utils.nms import TorchNMS
    torchvision.ops.nms = TorchNMS.nms
from ultralytics import YOLO
model = YOLO("cells.pt")
assert not any(name.split(".")[0] == "kdp" for name in sys.modules)
options = dict(imgsz=64, device="cpu", verbose=False)
val = model.val(data="data.yaml", project={project!r}, batch=2, workers=0, plots=False, **options)
(found,) = YOLO("cells.pt").predict("data/images/0.png", conf=1e-6, max_det=20, **options)
result = dict(names=found.names, boxes=found.boxes.data.tolist(), task=model.task,
              metrics=[val.box.map, val.box.map50, *val.box.maps])
pathlib.Path("result.json").write_text(json.dumps(result))
"""


@needs_ultralytics
def test_plain_ultralytics_runs_it_without_kdp(images: Path, tmp_path: Path) -> None:
    install()
    threads = torch.get_num_threads()
    model = import_ultralytics().YOLO("yolo11n.yaml")
    model.model = network()
    model.model.names = dict(enumerate(CLASSES))
    params = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    write_ultralytics(tmp_path / "cells.pt", params, "n", CLASSES, 64, {})
    code = ELSEWHERE.format(stand_in=broken_torchvision(), project=str(tmp_path / "there"))
    folder = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": str(tmp_path / "c")}
    done = run(code, tmp_path, **folder)
    assert done.returncode == 0, done.stderr
    there = json.loads((tmp_path / "result.json").read_text())
    assert there["names"] == {str(i): name for i, name in enumerate(CLASSES)}
    # The two processes may compute with different numbers of threads.
    assert there["metrics"] == pytest.approx(validate(model, images, tmp_path / "here"), abs=1e-3)
    options = {"imgsz": 64, "device": "cpu", "verbose": False, "conf": 1e-6, "max_det": 20}
    again = import_ultralytics().YOLO("yolo11n.yaml")
    again.model = network()
    (found,) = again.predict(str(tmp_path / "data/images/0.png"), **options)
    torch.set_num_threads(threads)
    assert len(there["boxes"]) > 5
    assert torch.allclose(torch.tensor(there["boxes"]), found.boxes.data, atol=1e-3)
