"""`kdp infer` for super-resolution: pictures become larger ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import torch
from torch import nn

from kdp.data.images import ImageArray, png_bytes, read_rgb
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.files import write_atomic
from kdp.progress import progress
from kdp.stages.infer.images import Inference, find_images, targets
from kdp.tasks.ensemble import ORIENTATIONS
from kdp.tasks.sections import TileConfig
from kdp.tasks.super_resolution import SuperResolution
from kdp.tasks.tiles import upscale_image

MIN_SIDE = 2
"""Pixels; a network cannot mirror a picture at its edge where there is only one."""


def super_resolve(
    model: nn.Module,
    task: SuperResolution,
    pictures: Sequence[str],
    folder: Path | None = None,
    ensemble: bool = False,
) -> Inference:
    """Write a super-resolved PNG of every picture; one that cannot be read does not stop the rest.

    Args:
        model: in eval mode.
        task: its own.
        pictures: see `find_images`.
        folder: where to write (default: see `targets`).
        ensemble: take the mean over the eight orientations of each picture.

    Raises:
        KdpError: no picture is found, two pictures would become one file, the device is not
            there, or a file cannot be written.
    """
    sources = find_images(pictures)
    model.to(pick_device(task.config.device))
    plan = targets(sources, folder, f"x{task.scale}")
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
            passes = _passes(lr, task.scale, task.tiles_for(model), ensemble)
            with _following(model, advance, passes):
                output = task.upscale(model, lr, ensemble)
            write_atomic(target, png_bytes(output))
            done.written.append(target)
    return done


def _read(path: Path) -> ImageArray:
    picture = read_rgb(path)
    height, width = picture.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise KdpError(f"the picture {path} is {width}x{height}; a side has {MIN_SIDE} at least")
    return picture


def _passes(lr: ImageArray, scale: int, tiles: TileConfig, ensemble: bool) -> int:
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
