"""Recovery without training."""

from __future__ import annotations

from pydantic import Field, PositiveFloat

from kdp.config.base import Samples, Section


class RecoverConfig(Section):
    """Layers that read removed units are refitted to the outputs of the unpruned network."""

    samples: Samples = 128
    """Number of training samples, whose labels are not used."""
    holdout: float = Field(0.25, gt=0, lt=1)
    """Share of the samples that layers are not refitted on; they decide whether a refit is kept."""
    ridge: PositiveFloat = 1e-3
    """How strongly weights are drawn towards those that pruning has left, relative to the mean
    square of a layer's inputs."""
