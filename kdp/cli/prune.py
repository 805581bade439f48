"""Prune: `prune`, `finetune` and `rebuild`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from kdp.log import log

if TYPE_CHECKING:
    from kdp.stages.chains import OpenedChain


@command("prune", "kdp prune -c config_catanet.yml mac_constraint=0.5")
def prune(
    overrides: Overrides = None,
    config: ChainConfig = None,
    values: SetValues = None,
    device: StageDevice = None,
    output: OutputFolder = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    rerun: Rerun = False,
) -> None:
    """Choose what to remove so that a budget holds, and set it to zero.

    The importance of units is measured once and reused. The section `rounds` prunes, fine-tunes
    and rebuilds again and again.
    """
    from kdp.stages.chains import open_chain

    chain = open_chain("prune", config, merged(overrides, values, device, output))
    options = {"resume": resume, "overwrite": overwrite}
    if chain.config.rounds:
        written = _in_rounds(chain, **options, rerun=rerun)
    else:
        written = _at_once(chain, **options)
    for path in written:
        echo(path)


def _at_once(chain: OpenedChain, **options: bool) -> tuple[Path, ...]:
    from kdp.stages.prune.prune import prune as run
    from kdp.stages.prune.report import show

    pruned = chain.run(run, **options)
    show(pruned)
    return pruned.pruned, pruned.masks


def _in_rounds(chain: OpenedChain, **options: bool) -> tuple[Path, ...]:
    from kdp.stages.prune.progressive import prune_in_rounds
    from kdp.stages.prune.report import show_rounds

    rounds = chain.run(prune_in_rounds, **options)
    show_rounds(rounds.rows)
    return rounds.path, rounds.table


@command("finetune", "kdp finetune", "kdp finetune -c config_catanet.yml finetune.steps=500")
def finetune(
    overrides: Overrides = None,
    config: ChainConfig = None,
    values: SetValues = None,
    device: StageDevice = None,
    output: OutputFolder = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    rerun: Rerun = False,
) -> None:
    """Recover the accuracy of a pruned network by distillation; removed units stay removed."""
    from kdp.stages.chains import open_chain

    chain = open_chain("finetune", config, merged(overrides, values, device, output))
    from kdp.stages.train.finetune import finetune as run

    for path in chain.run(run, resume=resume, overwrite=overwrite, rerun=rerun).values():
        echo(path)


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
            "--from", metavar="FILE", help="Network to rebuild. Default: the chain's last one."
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Masks to apply. Default: the chain's."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the physically smaller network, once its outputs equal those of the masked one."""
    from kdp.stages.chains import open_chain

    chain = open_chain("rebuild", config, merged(overrides, values, device))
    from kdp.stages.prune.rebuild import rebuild as run

    done = chain.run(run, source=source, masks_path=masks, target=output, overwrite=overwrite)
    share = done.parameters / done.full_parameters
    log.info(f"{done.parameters:,} of {done.full_parameters:,} parameters ({share:.1%}) remain")
    log.info(f"largest relative difference from the masked network: {done.difference:.1e}")
    echo(done.path)
