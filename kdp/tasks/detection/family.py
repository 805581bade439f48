"""What the stages use of detection."""

from __future__ import annotations

from kdp.tasks.detection.export import export_spec
from kdp.tasks.detection.predictor import ObjectLabeller
from kdp.tasks.detection.task import Detection
from kdp.tasks.family import Family

FAMILY = Family(task=Detection, export_spec=export_spec, predictor=ObjectLabeller)
