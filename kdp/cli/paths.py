"""`kdp paths`."""

from __future__ import annotations

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import ConfigFile, Overrides, SetValues, merged


@command("paths", "kdp paths -c config_catanet.yml")
def paths(config: ConfigFile, overrides: Overrides = None, values: SetValues = None) -> None:
    """Print where the stages of a configuration read and write, as Make variables."""
    from kdp.config.compose import load_with_files
    from kdp.stages.paths import make_variables

    echo(make_variables(*load_with_files(config, merged(overrides, values))), nl=False)
