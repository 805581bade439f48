"""`kdp rebuild`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import ChainConfig, Overrides, Overwrite, SetValues, StageDevice, merged
from kdp.log import log


@command("rebuild", "kdp rebuild", "kdp rebuild -c config_catanet.yml -o small.pth")
def rebuild(
    overrides: Overrides = None,
    config: ChainConfig = None,
    values: SetValues = None,
    device: StageDevice = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write. Default: the chain's."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Network to rebuild. Default: the chain's latest."
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Masks to apply. Default: the chain's."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the physically smaller network after checking that it equals its source."""
    from kdp.stages.chains import open_chain

    chain = open_chain("rebuild", config, merged(overrides, values, device))
    from kdp.stages.prune.rebuild import rebuild as run

    done = chain.run(run, source=source, masks_path=masks, target=output, overwrite=overwrite)
    share = done.parameters / done.full_parameters
    log.info(f"{done.parameters:,} of {done.full_parameters:,} parameters ({share:.1%}) remain")
    log.info(f"largest relative difference from the source network: {done.difference:.1e}")
    echo(done.path)
