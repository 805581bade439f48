"""`kdp clean`."""

from __future__ import annotations

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import ConfigFile, Overrides, SetValues, merged


@command("clean", "kdp clean -c config_catanet.yml")
def clean(config: ConfigFile, overrides: Overrides = None, values: SetValues = None) -> None:
    """Delete what the stages of a configuration wrote: weights, checkpoints, curves and tables.

    Files that git tracks, weights that come with kdp and files that kdp did not write are kept.
    """
    from kdp.config.compose import load_config
    from kdp.stages.clean import clean as run

    for path in run(load_config(config, merged(overrides, values))):
        echo(path)
