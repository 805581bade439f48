"""How much OPTIN's masks change with the calibration patches and the seed.

Scores are measured for several seeds and numbers of patches; the masks of one budget are compared
pair by pair. Run: python benchmarks/mask_stability.py --config configs/config_catanet.yml
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from kdp.artifacts import load
from kdp.config.compose import load_config
from kdp.pruning.groups import Masks
from kdp.stages.prune.prune import prune


def searched(config: Path, folder: Path, patches: int, seed: int, budget: float) -> Masks:
    """The masks of one search; scores that are there already are reused."""
    overrides = [
        f"output.dir={folder / f'patches{patches}_seed{seed}'}",
        f"prune.calibration.patches={patches}",
        f"seed={seed}",
        f"mac_constraint={budget}",
    ]
    result = prune(load_config(config, overrides))
    return dict(load(result.masks).extra["masks"])


def overlap(a: Masks, b: Masks, kinds: tuple[str, ...]) -> tuple[float, float]:
    """Share of units on which two sets of masks agree, and of the removed ones both remove."""
    names = [name for name in a if name.endswith(kinds)]
    x, y = (torch.cat([masks[name] for name in names]) for masks in (a, b))
    either = int((~x | ~y).sum())
    return float((x == y).float().mean()), int((~x & ~y).sum()) / either if either else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/stability"))
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--patches", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    runs = {
        (p, s): searched(options.config, options.folder, p, s, options.budget)
        for p in options.patches
        for s in options.seeds
    }
    table = Table(title=f"masks at mac_constraint={options.budget}: agreement / removed by both")
    for column in ("patches, seed", "patches, seed", "heads", "neurons"):
        table.add_column(column)
    for (a, masks_a), (b, masks_b) in itertools.combinations(runs.items(), 2):
        cells = [overlap(masks_a, masks_b, (kind,)) for kind in ("heads", "neurons")]
        table.add_row(str(a), str(b), *(f"{same:.1%} / {both:.1%}" for same, both in cells))
    Console().print(table)


if __name__ == "__main__":
    main()
