"""`kdp chains`."""

from __future__ import annotations

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import TextFormatOption
from kdp.log import log


@command("chains", "kdp chains")
def chains(text_format: TextFormatOption = "table") -> None:
    """List the chains in this folder, newest first; stages without --config continue the newest.

    A chain is the set of files that stages wrote from one configuration and its changes.
    """
    import json

    from kdp.stages.chains import list_chains

    known_chains = list_chains()
    if text_format == "json":
        echo(json.dumps([chain.plain() for chain in known_chains], indent=2))
        return
    for chain in known_chains:
        state = "finished" if chain.finished else "not finished"
        echo(f"{chain.output}  {chain.stage} {state}, {chain.time}  {chain.arguments}")
    if not known_chains:
        log.info("there are no chains in this folder; kdp train or kdp prune starts one")
