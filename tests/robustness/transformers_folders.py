"""Folders of pretrained audio transformers with other sizes, weights or code in them."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.artifact_helpers import RunsCode
from tests.models.audio_transformer_helpers import SIZES, write_pretrained
from tests.robustness.base import settings
from tests.robustness.cases import Folders
from tests.robustness.mutations import NUMBERS, mutate_bytes, mutate_tree, odd_value

CODE = {
    "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"},
    "_name_or_path": "../elsewhere",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "torch_dtype": "float16",
    "dtype": "nothing",
    "model_type": "bert",
    "architectures": ["code.Model"],
    "attn_implementation": "code",
    "hidden_act": "__import__('os')",
}
HUGE = ("hidden_size", "num_hidden_layers", "intermediate_size", "max_length", "num_mel_bins")


def make(random: Random, folders: Folders) -> Sequence[str]:
    """A folder of `transformers` with a wrong file, and a training that would start from it."""
    folder = folders.work / "ast"
    shutil.copytree(pretrained(folders.base), folder)
    for _ in range(random.choice((1, 1, 2))):
        random.choice((_config, _config, _weights, _weights, _code, _files))(
            random, folder, folders.mark
        )
    tree = settings(folders.base, "scenes")
    del tree["teacher"], tree["distill"], tree["finetune"]
    args = {"frames": random.choice((26, 26, 26, 1, 8, 64, 65, 9999))}
    if random.random() < 0.3:
        mutate_tree(random, args, folders.mark)
    tree["model"] = {"name": "audio_transformer", "weights": "ast", "args": args}
    (folders.work / "config.yml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return [random.choice(("validate", "validate", "validate", "train")), "--config", "config.yml"]


def pretrained(base: Path) -> Path:
    """A small network as `transformers` saves it; made once."""
    folder = base / "ast"
    return folder if folder.exists() else write_pretrained(folder, max_length=64)


def _config(random: Random, folder: Path, mark: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        return
    if random.random() < 0.2:
        path.write_bytes(mutate_bytes(random, path.read_bytes(), [b"[]", b"null", b"{}", b'"x"']))
        return
    try:
        tree = {"whole": json.loads(path.read_text())}
    except ValueError:
        return
    config = tree["whole"]
    if random.random() < 0.4 and isinstance(config, dict):
        config[random.choice((*HUGE, *SIZES, "max_length", "patch_size", "time_stride"))] = (
            random.choice(NUMBERS)
        )
    elif random.random() < 0.3 and isinstance(config, dict):
        key = random.choice(list(CODE))
        config[key] = CODE[key]
    else:
        mutate_tree(random, tree, mark)
    path.write_text(json.dumps(tree.get("whole"), default=str, skipkeys=True))


def _weights(random: Random, folder: Path, mark: Path) -> None:
    path = folder / "model.safetensors"
    if not path.is_file():
        return
    data = path.read_bytes()
    if random.random() < 0.3 or len(data) < 8:
        path.write_bytes(mutate_bytes(random, data))
        return
    length = struct.unpack("<Q", data[:8])[0]
    try:
        head: dict[str, Any] = json.loads(data[8 : 8 + length])
        body = data[8 + length :]
    except ValueError:
        return
    if not isinstance(head, dict):
        return
    mutate_tree(random, {"whole": head}, mark)
    entry = random.choice([value for value in head.values() if isinstance(value, dict)] or [{}])
    if random.random() < 0.5:
        entry["shape"] = random.choice(([], [2**40], [0], [-1], [1, 2, 3], [10**6, 10**6]))
    if random.random() < 0.2:
        entry["dtype"] = random.choice(("F64", "BOOL", "X", "F8_E4M3", "U64"))
    if random.random() < 0.2:
        body = b"\xff" * len(body)  # every number is NaN
    text = json.dumps(head, default=str, skipkeys=True).encode()
    size = len(text) if random.random() < 0.9 else random.choice((0, 2**63, 10**9, len(text) + 5))
    path.write_bytes(struct.pack("<Q", size) + text + body)


def _code(random: Random, folder: Path, mark: Path) -> None:
    """Python files and pickles that `transformers` would run or unpickle if it were asked to."""
    code = f"open({str(mark)!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    for name in ("code.py", "configuration.py", "modeling.py", "__init__.py", "transformers.py"):
        if random.random() < 0.5:
            (folder / name).write_text(code)
            (folder.parent / name).write_text(code)
    if random.random() < 0.5:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(RunsCode(mark)))
        (folder / "model.safetensors").unlink(missing_ok=True)
    path = folder / "config.json"
    if path.is_file() and random.random() < 0.6:
        try:
            config = json.loads(path.read_text())
            config.update(CODE if random.random() < 0.2 else {"auto_map": CODE["auto_map"]})
            path.write_text(json.dumps(config))
        except (ValueError, AttributeError, TypeError):
            return


def _files(random: Random, folder: Path, mark: Path) -> None:
    """Files that are missing, elsewhere, in parts, or no files."""
    path = folder / random.choice(("config.json", "model.safetensors"))
    if not path.is_file():
        return
    match random.randrange(6):
        case 0:
            path.unlink()
        case 1:
            path.unlink()
            path.symlink_to(path.name)
        case 2:
            path.unlink()
            path.mkdir()
        case 3:
            path.unlink()
            path.symlink_to("/dev/zero")
        case 4:
            index = {
                "metadata": {},
                "weight_map": {"x": random.choice(("../x", "/etc/passwd", "y"))},
            }
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
            (folder / "model.safetensors").unlink(missing_ok=True)
        case 5:
            value = odd_value(random, mark)
            path.write_text(json.dumps(value, default=str))
