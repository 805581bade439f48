"""`kdp prune`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import (
    ChainConfig,
    Evaluate,
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


@command("prune", "kdp prune -c config_catanet.yml mac_constraint=0.5")
def prune(
    overrides: Overrides = None,
    config: ChainConfig = None,
    values: SetValues = None,
    device: StageDevice = None,
    output: OutputFolder = None,
    evaluate: Evaluate = True,
    resume: Resume = False,
    overwrite: Overwrite = False,
    rerun: Rerun = False,
) -> None:
    """Choose which units to remove to meet a budget, and set them to zero.

    The importance of units is measured once and reused. With a `rounds` section, prune,
    fine-tune and rebuild in several rounds.
    """
    from kdp.stages.chains import open_chain

    chain = open_chain("prune", config, merged(overrides, values, device, output))
    options = {"resume": resume, "overwrite": overwrite}
    if chain.config.rounds:
        written = _in_rounds(chain, rerun=rerun, **options)
    else:
        written = _once(chain, evaluate=evaluate, **options)
    for path in written:
        echo(path)


def _in_rounds(chain: OpenedChain, **options: bool) -> Iterable[Path]:
    from kdp.stages.prune.progressive import prune_in_rounds
    from kdp.stages.prune.report import show_rounds

    rounds = chain.run(prune_in_rounds, **options)
    show_rounds(rounds.rows)
    return rounds.path, rounds.table


def _once(chain: OpenedChain, **options: bool) -> Iterable[Path]:
    from kdp.stages.prune.prune import prune as run
    from kdp.stages.prune.report import show

    pruned = chain.run(run, **options)
    show(pruned)
    return pruned.pruned, pruned.masks
