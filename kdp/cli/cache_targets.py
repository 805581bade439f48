"""`kdp cache-targets`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import ChainConfig, Overrides, Overwrite, SetValues, StageDevice, merged
from kdp.log import log


@command("cache-targets", "kdp cache-targets -c rep_mobile_kd.yml")
def cache_targets(
    overrides: Overrides = None,
    config: ChainConfig = None,
    values: SetValues = None,
    device: StageDevice = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for the outputs; the same as distill.target_cache=FOLDER.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Precompute and cache the teachers' outputs for every training sample.

    Training runs with the same data and seed can then read these instead of running the teachers.
    """
    from kdp.stages.chains import open_chain

    changes = merged(overrides, values, device)
    if output is not None:
        changes.append(f"distill.target_cache={output}")
    chain = open_chain("cache-targets", config, changes)
    from kdp.stages.train.cache_targets import cache_targets as run

    done = chain.run(run, overwrite=overwrite)
    log.info(f"{done.samples} samples, {done.size / 1e6:.1f} MB")
    log.info(f"Trainings read them with distill.target_cache={done.folder}")
    echo(done.folder)
