"""`kdp finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


@command("finetune", "kdp finetune", "kdp finetune -c config_catanet.yml finetune.steps=500")
def finetune(
    overrides: Overrides = None,
    config: ChainConfig = None,
    values: SetValues = None,
    device: StageDevice = None,
    output: OutputFolder = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Network to fine-tune. Default: the chain's, recovered if it was.",
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    rerun: Rerun = False,
) -> None:
    """Recover the accuracy of a pruned network by distillation; removed units stay removed."""
    from kdp.stages.chains import open_chain

    chain = open_chain("finetune", config, merged(overrides, values, device, output))
    from kdp.stages.train.finetune import finetune as run

    options = {"resume": resume, "overwrite": overwrite, "rerun": rerun}
    for path in chain.run(run, source=source, **options).values():
        echo(path)
