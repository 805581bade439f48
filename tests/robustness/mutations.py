"""Random changes of plain trees (mappings, lists, values) and of bytes."""

from __future__ import annotations

import datetime
import gzip
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 7, 64, 255, 65536, 60000, 2**31, 2**63, -(2**63), 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1.0, 1.5, -1.5, 1e-30, 1e30, 1e308),
    *(float("inf"), float("-inf"), float("nan")),
)
TEXTS = (
    *("", " ", "x", "null", "true", "0", "1e-3", "inf", "auto", "cuda:99", "???", "none", "~"),
    *(
        "${seed}",
        "${output}",
        "${output.dir}",
        "${nothing}",
        "${",
        "${}",
        "${.}",
        "${..x}",
        "\\${x}",
    ),
    *(
        "${oc.env:HOME}",
        "${oc.env:NOTHING_OF_THIS_NAME}",
        "${oc.env:}",
        "${oc.decode:[}",
        "${a:b,c}",
    ),
    *(
        "${oc.create:{a: 1}}",
        "${seed}${seed}${seed}",
        "${oc.dict.keys:output}",
        "${hydra:job.name}",
    ),
    *(
        "../up",
        "/dev/null",
        "/dev/full",
        "/dev/zero",
        "/dev/urandom",
        "/proc/self/mem",
        "/",
        ".",
        "..",
    ),
    *(
        "a\nb",
        "a\tb",
        "a\x1b[31mb",
        "a\x00b",
        "[red]x[/red]",
        "=1+1",
        "a|b",
        "a b",
        "{stem}",
        "%s%n",
    ),
    *(
        "日本語",
        "ünïcödé",
        "\u202egnp",
        "\ud7ff",
        "🙂",
        "x" * 240,
        "x" * 300,
        "y" * 100_000,
        "a/" * 2000,
    ),
    *(
        "~/x",
        "*",
        "[",
        "[[",
        "{a: b",
        "a,b",
        "(",
        "'",
        '"',
        "#",
        "&a",
        "!!str",
        "-",
        "--help",
        "@x",
    ),
)
CODE = (
    *(
        "$(touch {mark})",
        "`touch {mark}`",
        "; touch {mark}",
        "| touch {mark}",
        "$(shell touch {mark})",
    ),
    *(
        "__import__('os').system('touch {mark}')",
        "${oc.decode:'!!python/name:os.system'}",
        "{mark}.py:X",
    ),
)


def odd_value(random: Random, mark: Path | None = None) -> Any:
    """A value that hardly any key expects.

    Args:
        random: decides.
        mark: a file that nothing may create; texts that a shell or an interpreter would run do.
    """
    choice = random.random()
    if choice < 0.35:
        return random.choice(NUMBERS)
    if choice < 0.7:
        return random.choice(TEXTS)
    if choice < 0.8 and mark is not None:
        return random.choice(CODE).replace("{mark}", str(mark))
    if choice < 0.85:
        return random.choice((None, True, False, b"bytes", datetime.date(2025, 1, 1)))
    if choice < 0.95:
        some = [odd_value(random, mark) for _ in range(random.randrange(4))]
        return some if random.random() < 0.5 else {f"key{i}": x for i, x in enumerate(some)}
    deep: Any = 1
    for _ in range(random.choice((3, 30, 150))):
        deep = [deep] if random.random() < 0.5 else {"key": deep}
    return deep


def paths(tree: Any) -> list[tuple[Any, ...]]:
    """Places of all values in a tree, as keys and indices."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if _is_list(tree) else ()
    return [(key, *rest) for key, value in items for rest in [(), *paths(value)]]


def value_at(tree: Any, place: Sequence[Any]) -> Any:
    """The value at a place; see `paths`."""
    for key in place:
        tree = tree[key]
    return tree


def mutate_tree(random: Random, tree: Any, mark: Path | None = None) -> None:
    """Change a mapping in place, once."""
    places = paths(tree)
    if not places:
        tree["key"] = odd_value(random, mark)
        return
    place = random.choice(places)
    parent = value_at(tree, place[:-1])
    key = place[-1]
    match random.randrange(10):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[_odd_key(random, key)] = parent.pop(key)
        case 2 if isinstance(parent, dict):
            parent[_odd_key(random, key)] = odd_value(random, mark)
        case 3:
            other = random.choice(places)
            parent[key] = _copy(value_at(tree, other))
        case 4:
            parent[key] = random.choice(([parent[key]], {"key": parent[key]}, str(parent[key])))
        case 5 if isinstance(parent[key], (int, float)):
            parent[key] = parent[key] * random.choice((-1, 0, 0.5, 2, 1000))
        case _:
            parent[key] = odd_value(random, mark)


def mutate_bytes(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Damage the content of a file once: bits, lengths, blocks, or everything.

    Args:
        random: decides.
        data: the content.
        others: contents of other files, which may take its place.
    """
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((1, 4, 16, 100, 1000)))
    match random.randrange(10):
        case 0 | 1 | 2 if data:
            changed = bytearray(data)
            for _ in range(random.choice((1, 1, 3, 20))):
                changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
            return bytes(changed)
        case 3 | 4:
            return data[:start]
        case 5:
            return data[:start] + bytes(end - start) + data[end:]
        case 6:
            return data[:start] + data[end:]
        case 7:
            return data[:end] + data[start:]
        case 8:
            return data[:start] + random.randbytes(random.choice((1, 8, 500))) + data[start:]
        case _:
            foreign = (b"", b"\n", b"text\n", b"<html>", b"PK\x03\x04", random.randbytes(999))
            return random.choice((*foreign, gzip.compress(data), b"\x80\x04.", *others))


def _odd_key(random: Random, key: Any) -> Any:
    text = str(key)
    names = (text.upper(), text[:-1], f"{text}s", f"{text}.x", f" {text}", text * 50, "", "é")
    special = ("__class__", "_target_", "_self_", "defaults", "hydra", "<<", "a b", "a\nb", "=x")
    return random.choice((*names, *special, 0, None, True, 1.5))


def _is_list(tree: Any) -> bool:
    return isinstance(tree, list)


def _copy(tree: Any) -> Any:
    """A copy of the mappings and lists; values such as tensors are shared."""
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(value) for value in tree] if _is_list(tree) else tree
