"""Configurations with wrong keys, types, values, nesting, references, defaults and names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.robustness.base import settings
from tests.robustness.cases import Folders
from tests.robustness.mutations import (
    NUMBERS,
    TEXTS,
    mutate_bytes,
    mutate_tree,
    odd_value,
    paths,
    value_at,
)

FAMILIES = ("faces", "faces", "faces", "super", "scenes", "boxes")
COMMANDS = (
    *[("validate",)] * 14,
    *[("paths",), ("clean",), ("train", "train.steps=1"), ("finetune", "finetune.steps=1")],
    *[("prune",), ("rebuild",), ("cache-targets",), ("configs", "show", "config.yml")],
)
SECTIONS: dict[str, Sequence[Any]] = {
    "limits": ({"bytes": 1}, {"bytes": 10**9, "bits": 8, "macs": 10**12}, {"bits": 7}),
    "dynamic": (
        {"end_step": 1},
        {"end_step": 4, "period": 1, "loss": {"weight": 0.1}},
        {"criterion": "taylor", "end_step": 10**6, "start_step": 9},
    ),
    "rounds": (
        [],
        [{"pruning_ratio": 0.5, "steps": 1}],
        [{"pruning_ratio": 0.999, "steps": 1}] * 3,
    ),
    "tiles": ({"size": 16, "overlap": 8}, {"size": 1, "overlap": 1}, {"size": 8, "overlap": 900}),
    "experiments": ({}, {"folder": "e", "notes": "x"}, {"folder": "/dev/null"}),
    "detect": ({"confidence": 1e-9}, {"iou": 0.999}, {"x": 1}),
    "mac_constraint": (0.5, 1e-9, 0.999999, "0.5"),
    "pruning_ratio": (0.5, 1e-9, 0.999999, "half"),
}
"""Sections and keys that the settings do not have yet."""
OPTIONS = ("sample", "temperature", "pairs", "norm", "power", "weights", "x", "")
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
TAGS = (
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/new:subprocess.Popen [['touch', '{mark}']]",
    "!!python/name:os.system",
    "!include /etc/passwd",
    "!!binary aGVsbG8=",
    "!!set {a, b}",
    "!!timestamp 2001-12-14",
)


def make(random: Random, folders: Folders) -> Sequence[str]:
    """A configuration that is wrong in one to three ways, and a command that reads it."""
    family = random.choice(FAMILIES)
    tree = settings(folders.base, family)
    if random.random() < 0.3:
        del tree["train"], tree["finetune"], tree["distill"]
    for _ in range(random.choice((1, 1, 2, 3))):
        random.choice(CHANGES)(random, tree, folders.mark)
    text = yaml.dump(tree, sort_keys=False, allow_unicode=random.random() < 0.5).encode(
        errors="surrogatepass"
    )
    if random.random() < 0.2:
        text = random.choice((_damaged, _with_tag, _with_bomb, _repeated))(
            random, text, folders.mark
        )
    name, place = "config.yml", folders.work
    (place / name).write_bytes(text)
    for included in ("other", "third"):
        (place / f"{included}.yml").write_bytes(_included(random, included))
    command, *overrides = random.choice(COMMANDS)
    overrides += [
        _override(random, tree, folders.mark) for _ in range(random.choice((0, 0, 0, 1, 2)))
    ]
    if command == "configs":
        return [command, *overrides]
    return [command, "--config", name, *overrides]


def _value(random: Random, tree: dict[str, Any], mark: Path) -> None:
    mutate_tree(random, tree, mark)


def _section(random: Random, tree: dict[str, Any], mark: Path) -> None:
    """Add a section that is valid, nearly valid or not."""
    key = random.choice(list(SECTIONS))
    tree[key] = random.choice(SECTIONS[key])
    if random.random() < 0.3:
        tree[key] = odd_value(random, mark)


def _number(random: Random, tree: dict[str, Any], mark: Path) -> None:
    """Change a number, so that most keys keep their type."""
    places = [place for place in paths(tree) if type(value_at(tree, place)) in (int, float)]
    if places:
        place = random.choice(places)
        value_at(tree, place[:-1])[place[-1]] = random.choice(NUMBERS)


def _text(random: Random, tree: dict[str, Any], mark: Path) -> None:
    """Change a text: names and paths."""
    places = [place for place in paths(tree) if isinstance(value_at(tree, place), str)]
    if places:
        place = random.choice(places)
        value_at(tree, place[:-1])[place[-1]] = random.choice(TEXTS)


def _network(random: Random, tree: dict[str, Any], mark: Path) -> None:
    """Change the network's arguments, without a teacher whose own would be compared with them."""
    model = tree.get("model")
    if not isinstance(model, dict):
        return
    tree["teacher"] = tree["distill"] = None
    names = ("catanet", "mask_classifier", "cp_mobile", "rep_mobile", "audio_transformer", "yolo11")
    if random.random() < 0.2:
        model["name"] = random.choice(names)
    elif isinstance(model.get("args"), dict):
        mutate_tree(random, model["args"], mark)


def _loss(random: Random, tree: dict[str, Any], mark: Path) -> None:
    names = ("output", "feature", "fakd", "logits", "attention_transfer", "score_weighted", "none")
    options = {random.choice(OPTIONS): odd_value(random, mark)} if random.random() < 0.6 else {}
    loss: dict[str, Any] = {"options": options}
    if random.random() < 0.4:
        loss["schedule"] = random.choice(("piecewise", "linear", "constant", "x"))
        loss["phases"] = [
            {"until": random.choice((0.5, 1, 0, 2)), "start": random.choice((0, 1, 1e30)), "end": 0}
            for _ in range(random.randrange(3))
        ]
    tree["distill"] = {"losses": {random.choice(names): loss}}
    if random.random() < 0.4:
        tree["distill"]["taps"] = random.choice(
            (["nothing"], [], {"a": "b"}, ["head"], ["layers.16"], ["blocks.0"], [""], ["."])
        )


def _prune(random: Random, tree: dict[str, Any], mark: Path) -> None:
    if not isinstance(tree.get("prune"), dict):
        return
    tree["prune"]["criterion"] = random.choice(("optin", "taylor", "magnitude", "random", "gate"))
    tree[random.choice(("mac_constraint", "pruning_ratio"))] = random.choice((0.1, 0.5, 0.999))
    if random.random() < 0.6:
        keys = ("options", "min_units", "round_to", "kinds", "scores")
        tree["prune"][random.choice(keys)] = random.choice(
            (odd_value(random, mark), {"head": 10**9}, {"x": 1}, ["x"], [], {"conv": 7})
        )


def _defaults(random: Random, tree: dict[str, Any], mark: Path) -> None:
    entries = (
        *(
            "other",
            "third",
            "config",
            "config.yml",
            "_self_",
            "missing",
            "",
            ".",
            "..",
            "/etc/passwd",
        ),
        *(
            None,
            1,
            1.5,
            True,
            [],
            {},
            {"faces": "toy"},
            {"faces": None},
            {"x": "y"},
            {"faces": [1]},
        ),
        *("./other", "../other", "other.yml", "x" * 300, "a b", "${output.name}", "other@x", "~"),
        *({"optional other": "x"}, {"override /hydra": "x"}, {"faces@x": "toy"}, {"": ""}),
    )
    whole = random.choice((None, "", "other", 3, {}, {"other": None}, [], [[]]))
    some = [random.choice(entries) for _ in range(random.randrange(1, 4))]
    tree["defaults"] = whole if random.random() < 0.2 else some


CHANGES: Sequence[Callable[[Random, dict[str, Any], Path], None]] = (
    *(_value, _value, _value, _value, _number, _number, _text, _text),
    *(_section, _section, _network, _network, _loss, _prune, _defaults),
)


def _damaged(random: Random, text: bytes, mark: Path) -> bytes:
    return mutate_bytes(random, text, [b"[1, 2]", b"text", b"1", b"\xff\xfe", b"a: 1\n---\nb: 2\n"])


def _with_tag(random: Random, text: bytes, mark: Path) -> bytes:
    tag = random.choice(TAGS).replace("{mark}", str(mark)).encode()
    return b"seed: " + tag + text[text.index(b"\n") :] if b"\n" in text else tag


def _with_bomb(random: Random, text: bytes, mark: Path) -> bytes:
    bombs = (
        BOMB,
        "a: &a\n  b: *a\n",
        "a: &a [*a]\n",
        "x: " + "[" * 3000,
        "x: " + "{a: " * 3000,
        "- " * 3000,
        "? " * 3000,
        "<<: &a {<<: *a}\n",
        "k: " + "y" * 3_000_000 + "\n",
        "".join(f"k{i}: {i}\n" for i in range(20_000)),
    )
    return text + random.choice(bombs).encode()


def _repeated(random: Random, text: bytes, mark: Path) -> bytes:
    """Twice the same key, other line ends, a tab, a byte order mark, other encodings."""
    return random.choice(
        (
            text + b"seed: 1\n",
            text.replace(b"\n", b"\r\n"),
            text.replace(b"  ", b"\t"),
            b"\xef\xbb\xbf" + text,
            text.decode(errors="replace").encode("utf-16"),
            text + b"---\n" + text,
            text + b"\x00",
            text + "name: \u00e9\n".encode("latin-1"),
        )
    )


def _included(random: Random, name: str) -> bytes:
    other = "third" if name == "other" else "other"
    return random.choice(
        (
            b"seed: 1\n",
            f"defaults: [{other}]\nseed: 2\n".encode(),
            b"defaults: [config]\n",
            b"[]",
            b"",
            b"seed: [",
            b"# @package nowhere\nseed: 1\n",
        )
    )


def _override(random: Random, tree: dict[str, Any], mark: Path) -> str:
    places = [place for place in paths(tree) if all(isinstance(key, str) for key in place)]
    key = ".".join(random.choice(places)) if places else "seed"
    value = odd_value(random, mark)
    if not isinstance(value, str):
        value = yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("\n...")
    value = value.replace("\0", "")[:2000]
    forms = (
        *[f"{key}={value}"] * 6,
        *(f"~{key}", f"+{key}={value}", f"++{key}={value}", f"{key}", f"{key}=", f"={value}"),
        *(
            f"{key}={value},1",
            f"{key}.x={value}",
            f"{value}={key}",
            f"{key}@x={value}",
            "hydra.x=1",
        ),
    )
    form = random.choice(forms)
    return form if not form.startswith("-") else f"x{form}"
