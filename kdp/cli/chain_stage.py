"""Stages of a chain that can be resumed: `train` and `prune` take the same options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import (
    ChainConfig,
    OutputFolder,
    Overrides,
    Overwrite,
    Rerun,
    Resume,
    SetValues,
    StageDevice,
    merged,
)

if TYPE_CHECKING:
    from kdp.stages.chains import OpenedChain


class Stage(Protocol):
    """Runs a stage of an opened chain."""

    def __call__(
        self, chain: OpenedChain, *, resume: bool, overwrite: bool, rerun: bool
    ) -> Iterable[Path]:
        """Run it; return the files it wrote."""


def resumable_stage(name: str, *examples: str) -> Callable[[Stage], Stage]:
    """Register a function as the command of a stage; its docstring becomes the help.

    Args:
        name: of the stage and of the command.
        examples: whole command lines; the help ends with them.
    """

    def register(stage: Stage) -> Stage:
        def run(
            overrides: Overrides = None,
            config: ChainConfig = None,
            values: SetValues = None,
            device: StageDevice = None,
            output: OutputFolder = None,
            resume: Resume = False,
            overwrite: Overwrite = False,
            rerun: Rerun = False,
        ) -> None:
            from kdp.stages.chains import open_chain

            chain = open_chain(name, config, merged(overrides, values, device, output))
            for path in stage(chain, resume=resume, overwrite=overwrite, rerun=rerun):
                echo(path)

        run.__doc__ = stage.__doc__
        command(name, *examples)(run)
        return stage

    return register
