"""`kdp evaluate`."""

from __future__ import annotations

from kdp.cli.app import command
from kdp.cli.options import (
    Device,
    EvaluationConfig,
    NetworkFiles,
    OverwriteFiles,
    SetValues,
    TableFiles,
    TableFormatOption,
    merged,
)
from kdp.cli.table_output import write_and_print
from kdp.serialize import table_format


@command("evaluate", "kdp evaluate small.pth -c config_catanet.yml")
def evaluate(
    files: NetworkFiles,
    config: EvaluationConfig = None,
    values: SetValues = None,
    device: Device = None,
    output: TableFiles = None,
    printed: TableFormatOption = "table",
    overwrite: OverwriteFiles = False,
) -> None:
    """Measure only the quality of networks, without MACs and latency."""
    formats = {path: table_format(path) for path in output or ()}
    from kdp.stages.compare.compare import evaluate as run
    from kdp.stages.defaults import config_or_defaults
    from kdp.stages.replacing import OTHER_OUTPUT, check_targets

    check_targets(list(formats), overwrite, OTHER_OUTPUT)
    chosen = config_or_defaults(config, merged(None, values, device))
    write_and_print(run(files, chosen), printed, formats)
