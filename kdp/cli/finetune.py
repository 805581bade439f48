"""`kdp finetune`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kdp.cli.chain_stage import resumable_stage

if TYPE_CHECKING:
    from kdp.stages.chains import OpenedChain


@resumable_stage(
    "finetune", "kdp finetune", "kdp finetune -c config_catanet.yml finetune.steps=500"
)
def finetune(chain: OpenedChain, *, resume: bool, overwrite: bool, rerun: bool) -> Iterable[Path]:
    """Recover the accuracy of a pruned network by distillation; removed units stay removed."""
    from kdp.stages.train.finetune import finetune as run

    return chain.run(run, resume=resume, overwrite=overwrite, rerun=rerun).values()
