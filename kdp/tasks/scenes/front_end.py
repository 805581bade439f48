"""Which log-mel spectrograms a network reads: kept among its arguments, as its classes are."""

from __future__ import annotations

from kdp.config import Config
from kdp.data.mel_settings import MelSettings, mel_settings
from kdp.errors import KdpError
from kdp.tasks.scenes.section import AudioOptions
from kdp.types import Arch

LOG_MEL = "log_mel"
"""Argument of every audio network; networks with the default settings do not have it."""


def new_arch(arch: Arch, config: Config) -> Arch:
    """The architecture of a new network, with the settings that the configuration gives.

    Raises:
        KdpError: its arguments and the configuration give different ones, or unusable ones.
    """
    given = config.data.options(AudioOptions).audio.input_settings
    settings = front_end(arch, config) if LOG_MEL in arch.args else mel_settings(given)
    args = {key: value for key, value in arch.args.items() if key != LOG_MEL}
    if settings != MelSettings():
        args[LOG_MEL] = settings.plain
    return Arch(arch.name, args)


def front_end(arch: Arch, config: Config) -> MelSettings:
    """The settings of a network.

    Raises:
        KdpError: the configuration gives others, or those of the network are not usable.
    """
    try:
        settings = mel_settings(arch.args.get(LOG_MEL))
    except ValueError as error:
        raise KdpError(f"{arch.name} has unusable arguments: {LOG_MEL}: {error}") from error
    own = settings.plain
    for key, value in config.data.options(AudioOptions).audio.input_settings.items():
        if value != own[key]:
            raise KdpError(
                f"the network reads spectrograms of {key}={own[key]:g}, the configuration says "
                f"data.audio.{key}={value:g}: leave data.audio.{key} out"
            )
    return settings
