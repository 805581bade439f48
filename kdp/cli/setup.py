"""Set up: `validate` and `paths`."""

from __future__ import annotations

import typer

from kdp.cli.app import command
from kdp.cli.options import ChainConfig, ConfigFile, Overrides, SetValues, StageDevice, merged
from kdp.cli.stage import open_stage


@command("validate", "kdp validate -c config_catanet.yml")
def validate(
    overrides: Overrides = None,
    config: ChainConfig = None,
    values: SetValues = None,
    device: StageDevice = None,
) -> None:
    """Check a configuration before a long run: keys, files, data, one step, time and memory."""
    opened = open_stage("validate", config, merged(overrides, values, device))
    from kdp.stages.validate import validate as run

    checks = list(run(opened.config))
    for check in checks:
        typer.echo(f"{'ok  ' if check.passed else 'FAIL'} {check.what}: {check.found}")
    raise typer.Exit(0 if all(check.passed for check in checks) else 2)


@command("paths", "kdp paths -c config_catanet.yml")
def paths(config: ConfigFile, overrides: Overrides = None, values: SetValues = None) -> None:
    """Print where the stages of a configuration read and write, as Make variables."""
    from kdp.config.compose import composed_files, load_config
    from kdp.stages.paths import make_variables

    changes = merged(overrides, values)
    chosen, files = load_config(config, changes), composed_files(config, changes)
    typer.echo(make_variables(chosen, files), nl=False)
