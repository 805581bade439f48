"""What the stages use of super-resolution."""

from __future__ import annotations

from kdp.tasks.family import Family
from kdp.tasks.super_resolution.export import export_spec
from kdp.tasks.super_resolution.predictor import Upscaler
from kdp.tasks.super_resolution.task import SuperResolution

FAMILY = Family(task=SuperResolution, export_spec=export_spec, predictor=Upscaler)
