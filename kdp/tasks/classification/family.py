"""What the stages use of classification."""

from __future__ import annotations

from kdp.tasks.classification.export import export_spec
from kdp.tasks.classification.predictor import FaceLabeller
from kdp.tasks.classification.task import Classification
from kdp.tasks.family import Family

FAMILY = Family(task=Classification, export_spec=export_spec, predictor=FaceLabeller)
