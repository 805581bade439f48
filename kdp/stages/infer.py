"""`kdp infer`: super-resolve pictures with a trained network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from glob import glob
from pathlib import Path

import torch
from torch import nn

from kdp.config import Config, TileConfig
from kdp.data.images import SUFFIXES, Picture, list_images, png_bytes, read_rgb
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.files import write_atomic
from kdp.models.loading import load_network
from kdp.progress import progress
from kdp.tasks import task_for
from kdp.tasks.ensemble import ORIENTATIONS
from kdp.tasks.super_resolution import SuperResolution
from kdp.tasks.tiles import upscale_image

MIN_SIDE = 2
"""Pixels; a network cannot mirror a picture at its edge where there is only one."""


@dataclass(frozen=True)
class Inference:
    """What became of the pictures.

    Attributes:
        written: the files, in the order of the pictures.
        unreadable: what is wrong with each picture that was left out.
    """

    written: list[Path]
    unreadable: list[str]


def infer(
    file: Path,
    pictures: Sequence[str],
    config: Config,
    folder: Path | None = None,
    ensemble: bool = False,
) -> Inference:
    """Write a super-resolved PNG of every picture; one that cannot be read does not stop the rest.

    Args:
        file: an artifact or a foreign checkpoint, of a super-resolution network.
        pictures: see `find_pictures`.
        config: `tiles` and `device` are read.
        folder: where to write (default: see `targets`).
        ensemble: take the mean over the eight orientations of each picture.

    Raises:
        KdpError: no picture is found, the network is of another task or cannot be read, two
            pictures would become one file, the device is not there, or a file cannot be written.
    """
    sources, device = find_pictures(pictures), pick_device(config.device)
    model, task = _network(file, config)
    plan = targets(sources, folder, f"x{task.scale}")
    model.to(device)
    done = Inference([], [])
    with progress("super-resolve", len(plan)) as advance:
        for source, target in zip(sources, plan, strict=True):
            advance(0, note=source.name)
            try:
                lr = _read(source)
            except KdpError as error:
                done.unreadable.append(str(error))
                advance()
                continue
            passes = _passes(lr, task.scale, config.tiles, ensemble)
            with _following(model, advance, passes):
                output = task.upscale(model, lr, ensemble)
            write_atomic(target, png_bytes(output))
            done.written.append(target)
    return done


def find_pictures(given: Sequence[str]) -> list[Path]:
    """The pictures of files, folders (not of folders within) and glob patterns, each once.

    Raises:
        KdpError: there is no such file, no picture in a folder, or nothing that a pattern matches.
    """
    found = [path for one in given for path in _expand(one)]
    return list({os.path.abspath(path): path for path in found}.values())


def targets(sources: Sequence[Path], folder: Path | None, suffix: str) -> list[Path]:
    """Where the output of each picture goes.

    Args:
        sources: the pictures.
        folder: for all of them (default: `photos_<suffix>` beside the folder `photos` of each).
        suffix: of the default folder.

    Raises:
        KdpError: two would become the same file, or one would lie among the pictures.
    """
    taken: dict[str, Path] = {}
    places = {place for s in sources for place in (s.parent.resolve(), s.resolve().parent)}
    plan = []
    for source in sources:
        target = (folder or _beside(source.parent, suffix)) / f"{source.stem}.png"
        other = taken.setdefault(os.path.abspath(target), source)
        if other is not source:
            raise KdpError(f"{other} and {source} would both become {target}; rename one")
        if target.parent.resolve() in places:
            raise KdpError(f"{target} would lie among the pictures; choose another folder (--to)")
        plan.append(target)
    return plan


def _expand(given: str) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        return list_images(path)
    if path.is_file():
        return [path]
    if not any(character in given for character in "*?["):
        raise KdpError(f"there is no picture and no folder {path}")
    matches = (Path(match) for match in sorted(glob(given, recursive=True)))
    found = [m for m in matches if m.suffix.lower() in SUFFIXES and m.is_file()]
    if not found:
        raise KdpError(f"no picture matches {given} (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def _beside(folder: Path, suffix: str) -> Path:
    if folder.name in ("", ".."):
        folder = Path(os.path.abspath(folder))
    return folder.parent / f"{folder.name}_{suffix}"


def _network(file: Path, config: Config) -> tuple[nn.Module, SuperResolution]:
    model, arch, _ = load_network(file)
    task = task_for(arch, config)
    if not isinstance(task, SuperResolution):
        raise KdpError(f"{file} holds {arch['name']!r}, which is no super-resolution network")
    return model, task


def _read(path: Path) -> Picture:
    picture = read_rgb(path)
    height, width = picture.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise KdpError(f"the picture {path} is {width}x{height}; a side has {MIN_SIDE} at least")
    return picture


def _passes(lr: Picture, scale: int, tiles: TileConfig, ensemble: bool) -> int:
    """How often the network will run for a picture, found out with a stand-in on shapes alone."""
    calls: list[int] = []
    stand_in = nn.Upsample(scale_factor=scale)
    stand_in.register_forward_hook(lambda *_: calls.append(1))
    upscale_image(stand_in, torch.empty(3, *lr.shape[:2], device="meta"), scale, tiles)
    return len(calls) * (len(ORIENTATIONS) if ensemble else 1)


@contextmanager
def _following(model: nn.Module, advance: Callable[..., None], passes: int) -> Iterator[None]:
    """Let every pass of the network move the bar; all of a picture's passes make one step."""
    # Fractions add up to exactly one, so that the bar gets to its end.
    hook = model.register_forward_hook(lambda *_: advance(Fraction(1, passes)))
    try:
        yield
    finally:
        hook.remove()
