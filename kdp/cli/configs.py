"""The configurations that come with kdp: `configs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import SetValues, TextFormatOption, merged
from kdp.errors import KdpError


@command(
    "configs",
    "kdp configs",
    "kdp configs show face_mask.yml faces=real",
    "kdp configs copy config_catanet.yml -o mine.yml",
)
def configs(
    action: Annotated[
        Literal["list", "show", "copy"],
        typer.Argument(
            metavar="ACTION",
            help="list: list all. show: print one with all defaults and the meaning of every "
            "key. copy: copy one into the current folder.",
        ),
    ] = "list",
    name: Annotated[
        Path | None,
        typer.Argument(metavar="NAME", help="Name or path of a configuration, as for --config."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="show: change keys of the configuration."),
    ] = None,
    values: SetValues = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="copy: the new file. Default: the same name."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="copy: replace an existing file.")
    ] = False,
    text_format: TextFormatOption = "table",
) -> None:
    """List, show or copy the configurations of this folder and of kdp."""
    from kdp.stages import configs as stage

    if action == "list":
        if name is not None:
            raise KdpError("kdp configs list takes no name; kdp configs show NAME shows one")
        listed = stage.list_configs()
        echo(stage.to_json(listed) if text_format == "json" else stage.to_text(listed))
        return
    if name is None:
        raise KdpError(f"kdp configs {action} needs the name of a configuration (see kdp configs)")
    changes = merged(overrides, values)
    if action == "show":
        echo(stage.show_config(name, changes), nl=False)
    elif changes:
        raise KdpError("kdp configs copy takes no KEY=VALUE; change the copy, or give it on use")
    else:
        echo(stage.copy_config(name, output, overwrite))
