"""Set up: `validate` and `paths`."""

from __future__ import annotations

import typer

from kdp.cli.app import ConfigOption, Overrides, app


@app.command()
def validate(config: ConfigOption, overrides: Overrides = None) -> None:
    """Check before a long run: files, keys, weights, data, one batch, time and memory."""
    from kdp.config.compose import load_config
    from kdp.stages.validate import validate as run

    failed = False
    for check in run(load_config(config, overrides or ())):
        typer.echo(f"{'ok  ' if check.passed else 'FAIL'} {check.what}: {check.found}")
        failed = failed or not check.passed
    raise typer.Exit(2 if failed else 0)


@app.command()
def paths(config: ConfigOption, overrides: Overrides = None) -> None:
    """Print where the stages of a configuration read and write, as Make variables."""
    from kdp.config.compose import composed_files, load_config
    from kdp.stages.paths import make_variables

    chosen, files = load_config(config, overrides or ()), composed_files(config, overrides or ())
    typer.echo(make_variables(chosen, files), nl=False)
