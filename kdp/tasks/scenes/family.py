"""What the stages use of acoustic scenes."""

from __future__ import annotations

from kdp.tasks.family import Family
from kdp.tasks.scenes.export import export_spec
from kdp.tasks.scenes.front_end import LOG_MEL, new_arch
from kdp.tasks.scenes.predictor import SceneLabeller
from kdp.tasks.scenes.task import AcousticScenes

FAMILY = Family(
    task=AcousticScenes,
    export_spec=export_spec,
    predictor=SceneLabeller,
    new_arch=new_arch,
    input_args=(LOG_MEL,),
)
