"""`kdp validate`."""

from __future__ import annotations

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import ChainConfig, Overrides, SetValues, StageDevice, merged


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
