"""The schema of a configuration file, a module for each section; `compose` reads a file.

Sections that belong to one family, and the kinds of data, are registered: see `registry`.
"""

from __future__ import annotations

from kdp.config.base import Decay, Section
from kdp.config.data import DataConfig, EmbeddedSamples, SamplesConfig
from kdp.config.distill import (
    PLAN_SUFFIXES,
    DistillConfig,
    LossConfig,
    PhaseConfig,
    TeacherConfig,
)
from kdp.config.dynamic import DynamicConfig, DynamicSettings, SparsityConfig
from kdp.config.experiments import ExperimentsConfig
from kdp.config.measure import LimitsConfig, MeasureConfig
from kdp.config.model import ModelConfig
from kdp.config.output import OutputConfig
from kdp.config.prune import CalibrationConfig, PruneConfig, RoundConfig
from kdp.config.recover import RecoverConfig
from kdp.config.registry import (
    register_calibration_options,
    register_data_kind,
    register_data_options,
    register_section,
)
from kdp.config.schema import Config
from kdp.config.train import TrainConfig, TrainSettings

__all__ = [
    "PLAN_SUFFIXES",
    "CalibrationConfig",
    "Config",
    "DataConfig",
    "Decay",
    "DistillConfig",
    "DynamicConfig",
    "DynamicSettings",
    "EmbeddedSamples",
    "ExperimentsConfig",
    "LimitsConfig",
    "LossConfig",
    "MeasureConfig",
    "ModelConfig",
    "OutputConfig",
    "PhaseConfig",
    "PruneConfig",
    "RecoverConfig",
    "RoundConfig",
    "SamplesConfig",
    "Section",
    "SparsityConfig",
    "TeacherConfig",
    "TrainConfig",
    "TrainSettings",
    "register_calibration_options",
    "register_data_kind",
    "register_data_options",
    "register_section",
]
