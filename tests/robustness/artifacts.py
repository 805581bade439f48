"""Damaged and hostile files of kdp and of other programs, read by the commands that use them."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from kdp.checksums import with_checksum
from tests.artifact_helpers import RunsCode
from tests.robustness.cases import Folders
from tests.robustness.chain import CHECKPOINT, STOPPED
from tests.robustness.mutations import mutate_bytes, mutate_tree, odd_value, paths, value_at
from tests.robustness.onnx_files import damaged_onnx

CONFIG = ("--config", "config.yml")
NETWORK = (
    *(("inspect-weights", "{}"), ("inspect-weights", "{}", "--format", "json", "--layers")),
    *(("evaluate", "{}", *CONFIG), ("compare", "{}", "weights/tiny.pth", *CONFIG)),
    *(("infer", "{}", "image.png", "--whole", "--headless"), ("export", "{}", "-o", "new.onnx")),
    *(("validate", *CONFIG, "teacher={}"), ("validate", *CONFIG, "model.weights={}")),
    ("prune", *CONFIG, "teacher={}"),
)
READERS: dict[str, Sequence[Sequence[str]]] = {
    "weights/tiny.pth": (*NETWORK, ("prune", *CONFIG, "teacher={}")),
    "weights/tiny_pruned.pth": (
        *NETWORK,
        ("finetune", *CONFIG),
        ("rebuild", *CONFIG, "--from", "{}"),
    ),
    "weights/tiny_finetuned_logits.pth": (*NETWORK, ("rebuild", *CONFIG)),
    "weights/tiny_rebuilt.pth": NETWORK,
    "weights/tiny_pruning_masks.pth": (
        *(("rebuild", *CONFIG), ("finetune", *CONFIG, "--overwrite"), ("inspect-weights", "{}")),
        ("rebuild", *CONFIG, "--masks", "{}", "-o", "other.pth"),
    ),
    "weights/tiny_scores_magnitude.pth": (
        *(("prune", *CONFIG, "pruning_ratio=0.5"), ("inspect-weights", "{}")),
    ),
    CHECKPOINT: (
        *((*STOPPED, "--resume"), ("inspect-weights", "{}")),
        (*STOPPED, "--rerun"),
    ),
    "runs/stopped_train/curves.jsonl": ((*STOPPED, "--resume"),),
    "targets/index.pth": (("train", *CONFIG, "output.name=b", "distill.target_cache=targets"),),
    "targets/000000.pth": (("train", *CONFIG, "output.name=b", "distill.target_cache=targets"),),
    ".kdp/chains.json": (("chains",), ("rebuild",), ("validate",), ("chains", "--format", "json")),
    ".kdp/written.jsonl": (("export", "weights/tiny_rebuilt.pth", "-o", "network.onnx"),),
    "experiments/results.csv": (
        *(
            ("experiments",),
            ("experiments", "--sort", "value"),
            ("experiments", "--format", "json"),
        ),
        ("train", *CONFIG, "output.name=b"),
    ),
    "experiments/*/info.json": (("reproduce", "{experiment}"), ("experiments", "--diff", "{ids}")),
    "experiments/*/config.yml": (("reproduce", "{experiment}"), ("experiments", "--diff", "{ids}")),
    "experiments/*/metrics.json": (
        ("experiments", "--diff", "{ids}"),
        ("reproduce", "{experiment}"),
    ),
    "experiments/*/predictions.csv": (("reproduce", "{experiment}"),),
    "experiments/*/checkpoint.pth": (("reproduce", "{experiment}"),),
    "network.onnx": NETWORK[:5],
    "foreign.pth": NETWORK,
}
"""Commands that read a file; `{}` is the file."""
WEIGHTS = {"network.onnx": 6, "foreign.pth": 2, "weights/tiny.pth": 2, CHECKPOINT: 3}
"""How often a file is chosen, if not once."""
NAMES = [name for name in READERS for _ in range(WEIGHTS.get(name, 1))]


def make(random: Random, folders: Folders) -> Sequence[str]:
    """A finished chain, one of whose files is damaged, and a command that reads it."""
    shutil.copytree(folders.base / "chain", folders.work, dirs_exist_ok=True)
    shutil.copy(folders.base / "foreign.pth", folders.work)
    shutil.copy(folders.base / "images" / "0.png", folders.work / "image.png")
    pattern = random.choice(NAMES)
    path = random.choice(sorted(folders.work.glob(pattern)))
    _damage(random, path, folders)
    return [
        part
        for argument in random.choice(READERS[pattern])
        for part in _filled(argument, path.relative_to(folders.work), folders.work)
    ]


def _filled(argument: str, path: Path, folder: Path) -> list[str]:
    if argument == "{ids}":
        return sorted(place.name for place in (folder / "experiments").iterdir() if place.is_dir())
    return [argument.replace("{}", str(path)).replace("{experiment}", path.parent.name)]


def _damage(random: Random, path: Path, folders: Folders) -> None:
    data = path.read_bytes()
    if random.random() < 0.04:
        _replace_by_no_file(random, path)
    elif random.random() < 0.35:
        files = [
            folders.work / "image.png",
            *folders.work.glob("*/*.pth"),
            folders.work / "network.onnx",
        ]
        others = [random.choice(files).read_bytes(), pickle.dumps(RunsCode(folders.mark))]
        path.write_bytes(mutate_bytes(random, data, others))
    elif path.suffix == ".onnx":
        path.write_bytes(damaged_onnx(random, data, folders.mark))
    elif path.suffix == ".pth":
        path.write_bytes(_damaged_archive(random, path, folders.mark))
    elif path.suffix in (".json", ".jsonl"):
        path.write_text("".join(_damaged_json(random, line, folders.mark) for line in _lines(path)))
    else:
        path.write_bytes(mutate_bytes(random, mutate_bytes(random, data)))


def _replace_by_no_file(random: Random, path: Path) -> None:
    path.unlink()
    match random.randrange(4):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(path.name)
        case 2:
            path.symlink_to("/dev/zero")


def _lines(path: Path) -> list[str]:
    return [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()


def _damaged_json(random: Random, text: str, mark: Path) -> str:
    tree = {"whole": json.loads(text)}
    for _ in range(random.choice((1, 1, 3))):
        mutate_tree(random, tree, mark)
    return json.dumps(tree.get("whole"), default=str, skipkeys=True) + "\n"


def _damaged_archive(random: Random, path: Path, mark: Path) -> bytes:
    if random.random() < 0.25:
        return _other_entries(random, path.read_bytes())
    content = torch.load(path, weights_only=True)
    for _ in range(random.choice((1, 1, 2, 4))):
        random.choice((_change_tensor, _change_tensor, _change_value, _add_code))(
            random, content, mark
        )
    buffer = io.BytesIO()
    zipped = random.random() < 0.9
    try:
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    except (RuntimeError, TypeError, AttributeError, OverflowError, RecursionError):
        return pickle.dumps(None)  # torch cannot write what has become of it
    data = buffer.getvalue()
    return with_checksum(data) if zipped and random.random() < 0.5 else data


def _change_value(random: Random, content: dict[str, Any], mark: Path) -> None:
    mutate_tree(random, content, mark)


def _add_code(random: Random, content: dict[str, Any], mark: Path) -> None:
    """Put an object among the values that creates a file when it is unpickled."""
    if random.random() < 0.3:
        places = paths(content)
        _put(content, random.choice(places), RunsCode(mark)) if places else None


def _change_tensor(random: Random, content: dict[str, Any], mark: Path) -> None:
    places = [place for place in paths(content) if isinstance(value_at(content, place), Tensor)]
    if places:
        place = random.choice(places)
        _put(content, place, random.choice(TENSORS)(value_at(content, place), random))


def _one_value(tensor: Tensor, random: Random) -> Tensor:
    changed = tensor.clone().flatten()
    if changed.numel() and changed.is_floating_point():
        changed[random.randrange(changed.numel())] = random.choice(
            (float("nan"), float("inf"), 1e38, -1e30, 0)
        )
    return changed.reshape(tensor.shape)


TENSORS: Sequence[Callable[[Tensor, Random], Any]] = (
    _one_value,
    _one_value,
    lambda t, _: t.flatten(),
    lambda t, _: t[:0],
    lambda t, _: t.unsqueeze(0),
    lambda t, _: t.reshape(-1)[:1].expand(100_000, 100_000),
    lambda t, _: t.reshape(-1)[:1].expand(2**40),
    lambda t, _: torch.cat([t.reshape(-1), t.reshape(-1)]),
    lambda t, _: t.T if t.dim() == 2 else t.flip(0),
    lambda t, _: t.double(),
    lambda t, _: t.half(),
    lambda t, _: t.to(torch.complex64),
    lambda t, _: t.bool(),
    lambda t, _: t.long(),
    lambda t, _: t.to(torch.uint8),
    lambda t, _: torch.zeros_like(t),
    lambda t, _: t.float().to_sparse() if t.dim() else t,
    lambda t, _: torch.nn.Parameter(t.float()),
    lambda t, _: torch.empty(t.shape, device="meta"),
    lambda t, _: t.float().to(torch.float8_e4m3fn),
    lambda t, _: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    lambda t, _: t.tolist(),
    lambda t, _: t.numpy(),
    lambda t, random: odd_value(random),
)


def _other_entries(random: Random, data: bytes) -> bytes:
    """The archive with entries exchanged, left out, repeated, compressed or renamed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    comment = zipfile.ZipFile(io.BytesIO(data)).comment
    first, second = random.randrange(len(entries)), random.randrange(len(entries))
    name, other = entries[first][0], entries[second]
    change = random.randrange(8)
    if change == 0:
        entries[first], entries[second] = (name, other[1]), (other[0], entries[first][1])
    elif change == 1:
        del entries[first]
    elif change == 2:
        entries.append((name, other[1]))
    elif change == 3:
        entries[first] = (random.choice(("../x", "/tmp/x", "a/b", "", name.upper())), other[1])
    elif change == 4:
        entries[first] = (name, mutate_bytes(random, entries[first][1]))
    elif change == 5:
        entries[first] = (name, bytes(50_000_000))
    method = zipfile.ZIP_DEFLATED if change >= 5 else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for entry in entries:
            archive.writestr(*entry)
        if random.random() < 0.2:
            archive.comment = comment
    return buffer.getvalue()


def _put(tree: Any, place: Sequence[Any], value: Any) -> None:
    value_at(tree, place[:-1])[place[-1]] = value
