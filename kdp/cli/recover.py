"""`kdp recover`."""

from __future__ import annotations

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import (
    ChainConfig,
    Evaluate,
    OutputFolder,
    Overrides,
    Overwrite,
    SetValues,
    StageDevice,
    merged,
)


@command("recover", "kdp recover", "kdp recover -c config_catanet.yml recover.samples=256")
def recover(
    overrides: Overrides = None,
    config: ChainConfig = None,
    values: SetValues = None,
    device: StageDevice = None,
    output: OutputFolder = None,
    evaluate: Evaluate = True,
    overwrite: Overwrite = False,
) -> None:
    """Refit a pruned network in closed form, from unlabelled samples and without training.

    Layers that read removed units are fitted to the outputs of the network before pruning. A
    `recover` section lets kdp prune do it as its last step.
    """
    from kdp.stages.chains import open_chain

    chain = open_chain("recover", config, merged(overrides, values, device, output))
    from kdp.stages.prune.recover import recover as run
    from kdp.stages.prune.report import show_reached

    done = chain.run(run, overwrite=overwrite, evaluate=evaluate)
    show_reached(done.reached)
    echo(done.path)
