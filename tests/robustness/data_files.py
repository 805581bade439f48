"""Damaged and hostile samples: images, sounds, boxes and lists, in the layout of every family."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
import yaml
from PIL import Image

from tests.robustness.base import settings
from tests.robustness.cases import Folders
from tests.robustness.mutations import TEXTS, mutate_bytes

CONFIG = ("--config", "config.yml")
COMMANDS = (
    *[("validate", *CONFIG)] * 5,
    *[("evaluate", "{}.pth", *CONFIG)] * 3,
    *[("train", *CONFIG, "train.steps=1", "distill=null", "teacher=null")] * 2,
    *[("prune", *CONFIG, "pruning_ratio=0.3"), ("compare", "{}.pth", *CONFIG, "--images", "drawn")],
)
ENTITIES = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;&x;&x;">]>'
BOMB = (
    "<!DOCTYPE a [<!ENTITY b0 'haha'>"
    + "".join(f"<!ENTITY b{i} '{f'&b{i - 1};' * 10}'>" for i in range(1, 10))
    + "]><annotation><filename>&b9;</filename></annotation>"
)
NUMBERS = (
    "-1",
    "0",
    "1e30",
    "nan",
    "inf",
    "x",
    "",
    "0.5",
    "99999999999999999999",
    "1,5",
    "٣",
    " 7 ",
)


def make(random: Random, folders: Folders) -> Sequence[str]:
    """A data set of three samples, some files of which are damaged, and a command that reads it."""
    family = random.choice(list(LAYOUTS))
    tree = LAYOUTS[family](random, folders)
    for _ in range(random.choice((1, 1, 2, 3))):
        _damage(random, folders.work / "data", folders.mark)
    (folders.work / "config.yml").write_text(yaml.safe_dump(tree, sort_keys=False))
    name = "boxes" if family == "yolo" else family
    if random.random() < 0.2:
        return _infer(random, folders, name)
    command = random.choice(COMMANDS)
    return [argument.replace("{}", f"{folders.base}/{name}") for argument in command]


def _infer(random: Random, folders: Folders, name: str) -> Sequence[str]:
    files = [
        str(path) for path in sorted((folders.work / "data").rglob("*")) if path.suffix != ".xml"
    ]
    options = {"super": [], "faces": random.choice((["--whole"], []))}.get(name, [])
    folder = "data/audio" if name == "scenes" else "data"
    inputs = random.choice((files[:3], [folder], files[-2:], [f"{folder}/*"])) or [folder]
    output = random.choice(("drawn.csv", "drawn.json")) if name == "scenes" else "drawn"
    return ["infer", f"{folders.base}/{name}.pth", *options, "-o", output, "--", *inputs]


def _faces(random: Random, folders: Folders) -> dict[str, Any]:
    for number, label in enumerate(("with_mask", "without_mask", "with_mask")):
        target = folders.work / "data" / label / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folders.base / "images" / f"{number}.png", target)
    return settings(folders.base, "faces", {"kind": "folders", "folder": "data"})


def _super(random: Random, folders: Folders) -> dict[str, Any]:
    shutil.copytree(folders.base / "images", folders.work / "data" / "hr")
    data = {"kind": "hr_only", "hr": "data/hr", "cache": "cache"}
    if random.random() < 0.4:
        (folders.work / "data" / "lr").mkdir()
        for path in (folders.work / "data" / "hr").iterdir():
            with Image.open(path) as image:
                image.resize((24, 24)).save(folders.work / "data" / "lr" / path.name)
        data = {"kind": "paired", "hr": "data/hr", "lr": "data/lr"}
    return settings(folders.base, "super", data)


def _boxes(random: Random, folders: Folders) -> dict[str, Any]:
    shutil.copytree(folders.base / "voc", folders.work / "data")
    data = {"kind": "voc", "folder": "data", "split": "train"}
    return settings(folders.base, "boxes", data)


def _yolo(random: Random, folders: Folders) -> dict[str, Any]:
    data = folders.work / "data"
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True)
    for number in range(3):
        shutil.copy(folders.base / f"voc/JPEGImages/{number}.jpg", data / "images")
        (data / "labels" / f"{number}.txt").write_text(f"{number} 0.5 0.5 0.2 0.3\n")
    description: dict[str, Any] = {"path": "data", "train": "images", "val": "images"}
    description["names"] = ["circle", "square", "triangle"]
    if random.random() < 0.5:
        description["download"] = f"__import__('os').system('touch {folders.mark}')"
    (data / "data.yaml").write_text(yaml.safe_dump(description))
    return settings(folders.base, "boxes", {"kind": "yolo", "folder": "data/data.yaml"})


def _scenes(random: Random, folders: Folders) -> dict[str, Any]:
    shutil.copytree(folders.base / "sounds", folders.work / "data")
    data = {"kind": "scenes", "folder": "data", "split": "list.csv"}
    return settings(folders.base, "scenes", data)


LAYOUTS: dict[str, Callable[[Random, Folders], dict[str, Any]]] = {
    "faces": _faces,
    "super": _super,
    "boxes": _boxes,
    "yolo": _yolo,
    "scenes": _scenes,
}


def _damage(random: Random, folder: Path, mark: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    if not files:
        return
    path = random.choice(files)
    choice = random.random()
    if choice < 0.15:
        _change_place(random, path)
    elif choice < 0.4:
        others = [random.choice(files).read_bytes() for _ in range(2)]
        path.write_bytes(mutate_bytes(random, path.read_bytes(), others))
    elif path.suffix in (".png", ".jpg"):
        path.write_bytes(_image(random))
    elif path.suffix == ".wav":
        path.write_bytes(_sound(random))
    elif path.suffix == ".xml":
        path.write_text(_xml(random, path.read_text(errors="replace")))
    else:
        path.write_bytes(
            _words(random, path.read_text(errors="replace")).encode(errors="surrogatepass")
        )


def _change_place(random: Random, path: Path) -> None:
    """Rename a file, copy it beside itself, or put something else into its place."""
    match random.randrange(8):
        case 0:
            path.unlink()
        case 1:
            path.unlink()
            path.mkdir()
        case 2:
            path.unlink()
            path.symlink_to(path.name)
        case 3:
            path.unlink()
            os.mkfifo(path)
        case 4:
            path.unlink()
            path.symlink_to("/dev/zero")
        case 5:
            path.rename(path.with_suffix(random.choice((".PNG", ".tif", ".bmp", ".txt", ""))))
        case 6:
            names = [text for text in TEXTS if text.strip(".") and not {"/", "\0"} & set(text)]
            name = random.choice([name for name in names if len(name) < 240])
            path.rename(path.with_name(os.fsdecode(os.fsencode(name[:60])) + path.suffix))
        case 7:
            shutil.copy(path, path.with_suffix(random.choice((".jpg", ".webp", ".PNG", ".jpeg"))))


def _image(random: Random) -> bytes:
    """An image of an unusual kind or size, or one whose head promises more than there is."""
    size = random.choice(
        ((1, 1), (1, 40), (12, 40), (3, 2), (48, 48), (47, 49), (300, 5), (5, 300))
    )
    mode = random.choice(
        ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "RGB", "RGB")
    )
    kinds = {
        "PNG": "1 L LA P RGB RGBA I;16",
        "JPEG": "L RGB CMYK",
        "WEBP": "RGB RGBA",
        "GIF": "P L",
    }
    kind = random.choice(
        [kind for kind, modes in kinds.items() if mode in modes.split()] or ["TIFF"]
    )
    image = Image.new(mode, size)
    buffer = io.BytesIO()
    options: dict[str, Any] = {}
    if kind in ("JPEG", "WEBP", "PNG") and random.random() < 0.4:
        exif = Image.Exif()
        exif[0x0112] = random.choice((0, 1, 3, 5, 6, 8, 9, 600))
        options["exif"] = exif
    image.save(buffer, kind, **options)
    data = buffer.getvalue()
    if random.random() < 0.25:
        return _huge_png(random)
    return data[: random.randrange(len(data))] if random.random() < 0.3 else data


def _huge_png(random: Random) -> bytes:
    """A few bytes that decode to a large image, or only say so."""
    width, height = random.choice(((32_000, 32_000), (2**31 - 1, 1), (0, 0), (60_000, 60_000)))
    depth, colour = random.choice(((1, 0), (8, 2), (16, 6), (8, 3), (3, 9)))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    line = bytes(1 + min(width, 70_000) // 8)
    data = zlib.compress(line * min(height, 2000), 9)
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _sound(random: Random) -> bytes:
    """A sound of an unusual rate, length, scale or encoding, or with a head that lies."""
    rate = random.choice((1, 8000, 32000, 44100, 192000, 1_000_000))
    frames = random.choice((0, 1, 100, 32000, 50_000))
    wave = np.random.default_rng(0).normal(size=(frames, random.choice((1, 1, 2, 9))))
    wave *= random.choice((0, 0.1, 1, 32768, float("nan"), float("inf")))
    buffer = io.BytesIO()
    kind = random.choice(("WAV", "WAV", "FLAC", "AIFF"))
    subtype = random.choice(("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ULAW"))
    if subtype == "ULAW":  # libsndfile looks values up in a table without checking its bounds
        wave = np.nan_to_num(wave).clip(-1, 1)
    try:
        options = {"subtype": subtype} if kind == "WAV" else {}
        soundfile.write(buffer, wave, rate, format=kind, **options)
    except (soundfile.LibsndfileError, AssertionError, ValueError, TypeError):
        return b"RIFF\xff\xff\xff\xffWAVEfmt "
    data = bytearray(buffer.getvalue())
    if kind == "WAV" and random.random() < 0.5:
        place = random.choice((4, 16, 20, 22, 24, 28, 32, 34, 40))
        data[place : place + 2] = random.choice((b"\0\0", b"\xff\xff", b"\xff\x7f"))
    return bytes(data)


def _xml(random: Random, text: str) -> str:
    if random.random() < 0.15 or ">" not in text:
        return random.choice(
            (
                BOMB,
                ENTITIES + text,
                "<a/>",
                "<annotation/>",
                "<!DOCTYPE a SYSTEM 'file:///etc/passwd'>" + text,
            )
        )
    start = random.choice([i for i, letter in enumerate(text) if letter == ">"]) + 1
    end = text.find("<", start)
    if random.random() < 0.3:
        return text[:start] + text[random.randrange(start, len(text) + 1) :]
    content = random.choice((*NUMBERS, *[value for value in TEXTS if len(value) < 300]))
    return text[:start] + content + text[end if end >= 0 else start :]


def _words(random: Random, text: str) -> str:
    """A list or table with one word, line or separator changed."""
    lines = text.split("\n")
    number = random.randrange(len(lines))
    line = lines[number]
    separator = next((mark for mark in "\t,: " if mark in line), " ")
    words = line.split(separator)
    words[random.randrange(len(words))] = random.choice((*NUMBERS, *TEXTS))
    changed = (
        separator.join(words),
        separator.join(words),
        separator.join(words),
        line + separator + "more",
        line.replace(separator, random.choice(",;|\t ")),
        f'"{line}',
        f"{line}\n{line}",
        separator.join(line.split(separator)[:-1]),
    )
    lines[number] = random.choice(changed)
    return ("\ufeff" if random.random() < 0.1 else "") + "\n".join(lines)
