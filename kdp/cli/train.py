"""`kdp train`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kdp.cli.chain_stage import resumable_stage

if TYPE_CHECKING:
    from kdp.stages.chains import OpenedChain


@resumable_stage("train", "kdp train -c student_dynamic.yml train.steps=1000 --device cuda")
def train(chain: OpenedChain, *, resume: bool, overwrite: bool, rerun: bool) -> Iterable[Path]:
    """Train a network: a teacher, or a student that learns from teachers.

    A `distill` section makes it a student; a `dynamic` section prunes it while it trains.
    """
    from kdp.stages.train.train import train as run

    return chain.run(run, resume=resume, overwrite=overwrite, rerun=rerun).values()
