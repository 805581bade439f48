"""Train and distil: `train`, `finetune` and `teach`."""

from __future__ import annotations

import typer

from kdp.cli.app import ConfigOption, Overrides, Resume, app


@app.command()
def train(config: ConfigOption, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a network: a teacher, or a student with `distill` and `dynamic`."""
    from kdp.config.compose import load_config
    from kdp.stages.train.train import train as run

    for path in run(load_config(config, overrides or ()), resume).values():
        typer.echo(path)


@app.command()
def teach(config: ConfigOption, overrides: Overrides = None) -> None:
    """Write down what the teachers say of every training sample, for many trainings."""
    from kdp.config.compose import load_config
    from kdp.log import log
    from kdp.stages.train.cache_targets import teach as run

    done = run(load_config(config, overrides or ()))
    log.info(
        f"{done.samples} samples, {done.size / 1e6:.1f} MB; read with distill.targets={done.folder}"
    )
    typer.echo(done.folder)


@app.command()
def finetune(config: ConfigOption, overrides: Overrides = None, resume: Resume = False) -> None:
    """Recover a pruned network by distillation; what was removed stays removed."""
    from kdp.config.compose import load_config
    from kdp.stages.train.finetune import finetune as run

    for path in run(load_config(config, overrides or ()), resume).values():
        typer.echo(path)
