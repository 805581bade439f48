"""A finished chain of the smallest family, with every kind of file that kdp writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.robustness.base import settings
from tests.robustness.client import Kdp

STOPPED = ("train", "--config", "config.yml", "output.name=stopped", "train.steps=2")
CHECKPOINT = "runs/stopped_train/checkpoint.pth"
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("train", "--config", "config.yml"),
    ("cache-targets", "--config", "config.yml", "--output", "targets"),
    ("prune", "--config", "config.yml"),
    ("finetune", "--config", "config.yml"),
    ("rebuild", "--config", "config.yml"),
    ("export", "weights/tiny_rebuilt.pth", "-o", "network.onnx"),
)


def chain_settings(base: Path) -> dict[str, Any]:
    """A configuration that trains, caches targets, prunes, fine-tunes, and keeps experiments."""
    return {
        **settings(base, "faces"),
        "pruning_ratio": 0.3,
        "experiments": {"notes": "a note"},
        "distill": {"losses": {"logits": {"options": {"temperature": 2}}}},
    }


def write_chain(kdp: Kdp, base: Path) -> Path:
    """Run the chain in `base/chain`, once; stop a second training, so that a checkpoint remains.

    Returns:
        The folder.
    """
    folder = base / "chain"
    if folder.exists():
        return folder
    folder.mkdir()
    (folder / "config.yml").write_text(yaml.safe_dump(chain_settings(base), sort_keys=False))
    for command in COMMANDS:
        done = kdp.run(command, folder)
        assert done.code == 0, (command, done.stderr)
    kdp.run(STOPPED, folder, kill_at="os.rename .stopped.pth.*")
    assert (folder / CHECKPOINT).exists()
    return folder
