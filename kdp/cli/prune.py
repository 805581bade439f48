"""Prune: `prune` and `rebuild`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdp.cli.app import ConfigOption, Overrides, Resume, app

if TYPE_CHECKING:
    from kdp.config import Config


@app.command()
def prune(config: ConfigOption, overrides: Overrides = None, resume: Resume = False) -> None:
    """Search what to remove within a budget; saved importance is reused. Or prune in `rounds`."""
    from kdp.config.compose import load_config

    chosen = load_config(config, overrides or ())
    for path in _prune_in_rounds(chosen, resume) if chosen.rounds else _prune(chosen, resume):
        typer.echo(path)


def _prune(config: Config, resume: bool) -> tuple[Path, ...]:
    from kdp.stages.prune.prune import prune as run
    from kdp.stages.prune.report import show

    found = run(config, resume)
    show(found)
    return found.pruned, found.masks


def _prune_in_rounds(config: Config, resume: bool) -> tuple[Path, ...]:
    from kdp.stages.prune.progressive import prune_in_rounds
    from kdp.stages.prune.report import show_rounds

    found = prune_in_rounds(config, resume)
    show_rounds(found.rows)
    return found.path, found.table


@app.command()
def rebuild(
    config: ConfigOption,
    overrides: Overrides = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="What to rebuild (default: the fine-tuned file).")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Masks file, if not the chain's.")] = None,
    target: Annotated[Path | None, typer.Option("--to", help="Where to write.")] = None,
) -> None:
    """Write the physically smaller network, once it is proven equal to the masked one."""
    from kdp.config.compose import load_config
    from kdp.log import log
    from kdp.stages.prune.rebuild import rebuild as run

    done = run(load_config(config, overrides or ()), source, masks, target)
    share = done.parameters / done.full_parameters
    log.info(f"{done.parameters:,} of {done.full_parameters:,} parameters ({share:.1%}) remain")
    log.info(f"largest relative difference from the masked network: {done.difference:.1e}")
    typer.echo(done.path)
