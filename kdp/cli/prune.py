"""Prune: `prune`, `finetune` and `rebuild`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdp.cli.app import command
from kdp.cli.chain_stage import resumable_stage
from kdp.cli.echo import echo
from kdp.cli.options import ChainConfig, Overrides, Overwrite, SetValues, StageDevice, merged
from kdp.log import log

if TYPE_CHECKING:
    from kdp.stages.chains import OpenedChain


@resumable_stage("prune", "kdp prune -c config_catanet.yml mac_constraint=0.5")
def prune(chain: OpenedChain, *, resume: bool, overwrite: bool, rerun: bool) -> Iterable[Path]:
    """Choose what to remove so that a budget holds, and set it to zero.

    The importance of units is measured once and reused. The section `rounds` prunes, fine-tunes
    and rebuilds again and again.
    """
    if chain.config.rounds:
        from kdp.stages.prune.progressive import prune_in_rounds
        from kdp.stages.prune.report import show_rounds

        rounds = chain.run(prune_in_rounds, resume=resume, overwrite=overwrite, rerun=rerun)
        show_rounds(rounds.rows)
        return rounds.path, rounds.table

    from kdp.stages.prune.prune import prune as run
    from kdp.stages.prune.report import show

    pruned = chain.run(run, resume=resume, overwrite=overwrite)
    show(pruned)
    return pruned.pruned, pruned.masks


@resumable_stage(
    "finetune", "kdp finetune", "kdp finetune -c config_catanet.yml finetune.steps=500"
)
def finetune(chain: OpenedChain, *, resume: bool, overwrite: bool, rerun: bool) -> Iterable[Path]:
    """Recover the accuracy of a pruned network by distillation; removed units stay removed."""
    from kdp.stages.train.finetune import finetune as run

    return chain.run(run, resume=resume, overwrite=overwrite, rerun=rerun).values()


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
