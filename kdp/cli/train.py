"""`kdp train`."""

from __future__ import annotations

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


@command("train", "kdp train -c student_dynamic.yml train.steps=1000 --device cuda")
def train(
    overrides: Overrides = None,
    config: ChainConfig = None,
    values: SetValues = None,
    device: StageDevice = None,
    output: OutputFolder = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    rerun: Rerun = False,
) -> None:
    """Train a network: a teacher, or a student that learns from teachers.

    A `distill` section makes it a student; a `dynamic` section prunes it while it trains.
    """
    from kdp.stages.chains import open_chain

    chain = open_chain("train", config, merged(overrides, values, device, output))
    from kdp.stages.train.train import train as run

    written = chain.run(run, resume=resume, overwrite=overwrite, rerun=rerun)
    for path in written.values():
        echo(path)
