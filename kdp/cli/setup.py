"""Set up: `validate`, `paths`, `clean` and `chains`."""

from __future__ import annotations

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import (
    ChainConfig,
    ConfigFile,
    Overrides,
    SetValues,
    StageDevice,
    TextFormatOption,
    merged,
)
from kdp.log import log


@command("validate", "kdp validate -c config_catanet.yml")
def validate(
    overrides: Overrides = None,
    config: ChainConfig = None,
    values: SetValues = None,
    device: StageDevice = None,
) -> None:
    """Check a configuration before a long run: keys, files, data, one step, time and memory."""
    from kdp.stages.chains import open_chain

    chain = open_chain("validate", config, merged(overrides, values, device))
    from kdp.stages.validate import validate as run

    checks = list(run(chain.config))
    for check in checks:
        echo(f"{'ok  ' if check.passed else 'FAIL'} {check.name}: {check.message}")
    raise typer.Exit(0 if all(check.passed for check in checks) else 2)


@command("paths", "kdp paths -c config_catanet.yml")
def paths(config: ConfigFile, overrides: Overrides = None, values: SetValues = None) -> None:
    """Print where the stages of a configuration read and write, as Make variables."""
    from kdp.config.compose import composed_files, load_config
    from kdp.stages.paths import make_variables

    changes = merged(overrides, values)
    chosen, files = load_config(config, changes), composed_files(config, changes)
    echo(make_variables(chosen, files), nl=False)


@command("clean", "kdp clean -c config_catanet.yml")
def clean(config: ConfigFile, overrides: Overrides = None, values: SetValues = None) -> None:
    """Delete what the stages of a configuration wrote: weights, checkpoints, curves and tables.

    What git tracks, weights that come with kdp and files that kdp did not write stay.
    """
    from kdp.config.compose import load_config
    from kdp.stages.clean import clean as run

    for path in run(load_config(config, merged(overrides, values))):
        echo(path)


@command("chains", "kdp chains")
def chains(text_format: TextFormatOption = "table") -> None:
    """List the chains of this folder, newest first; stages without --config continue the first.

    A chain is what the stages wrote with one configuration and its changes.
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
