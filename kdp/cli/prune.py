"""`kdp prune`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kdp.cli.chain_stage import resumable_stage

if TYPE_CHECKING:
    from kdp.stages.chains import OpenedChain


@resumable_stage("prune", "kdp prune -c config_catanet.yml mac_constraint=0.5")
def prune(chain: OpenedChain, *, resume: bool, overwrite: bool, rerun: bool) -> Iterable[Path]:
    """Choose which units to remove to meet a budget, and set them to zero.

    The importance of units is measured once and reused. With a `rounds` section, prune,
    fine-tune and rebuild in several rounds.
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
