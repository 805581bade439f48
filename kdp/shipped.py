"""The configurations and weights that come with kdp: in the repository, or inside the package.

The wheel is built from these lists (`setup.py`), so that nothing else in those folders gets into
it: neither a file of the user's nor one that a run wrote.
"""

from __future__ import annotations

from pathlib import Path

OVERLAYS = "overlays"
"""Folder of the files that a choice such as `faces=real` adds to a configuration."""

CONFIGS = (
    "config_catanet.yml",
    "face_mask_prune.yml",
    "prune_schedule.yml",
    "train_student_distill.yml",
    "yolo11_attention_transfer.yml",
    "catanet/catanet_bsds.yml",
    "catanet/catanet_div2k.yml",
    "catanet/catanet_dynamic.yml",
    "catanet/catanet_teacher.yml",
    "catanet/sr_benchmarks.yml",
    "catanet/student_bsds.yml",
    "catanet/student_dynamic.yml",
    "face_mask/face_mask.yml",
    "face_mask/face_mask_kd_medium.yml",
    "face_mask/face_mask_kd_small.yml",
    "scenes/cp_mobile.yml",
    "scenes/rep_mobile.yml",
    "scenes/rep_mobile_kd.yml",
    "scenes/scenes_teacher.yml",
    "yolo11/yolo11_builtin.yml",
    "yolo11/yolo11_prune.yml",
    "yolo11/yolo11_smoke.yml",
    "yolo11/yolo11_smoke_teacher.yml",
    "overlays/boxes/bccd.yml",
    "overlays/boxes/shapes.yml",
    "overlays/boxes/voc.yml",
    "overlays/boxes/voc0712.yml",
    "overlays/faces/collection.yml",
    "overlays/faces/real.yml",
    "overlays/faces/toy.yml",
    "overlays/scenes/esc10.yml",
    "overlays/scenes/esc50.yml",
    "overlays/scenes/esc50_esc10.yml",
    "overlays/scenes/tau.yml",
    "overlays/scenes/toy.yml",
)

SCHEMA = "docs/schema/kdp.schema.json"
"""The shipped configurations name it for editors, relative to themselves."""

WEIGHTS = (
    "catanet_teacher_x2.pth",
    "face_mask.pth",
    "face_mask_pruned_70.pth",
    "face_mask_small.pth",
)


def shipped_root() -> Path:
    """The folder that holds `configs` and `weights`: of the package, or of the repository."""
    package = Path(__file__).resolve().parent
    inside = package / "_shipped"
    return inside if inside.is_dir() else package.parent


def shipped_weight(path: Path) -> Path | None:
    """The shipped file that a path such as `weights/face_mask.pth` names, if it names one."""
    if path.parts[:-1] != ("weights",) or path.name not in WEIGHTS:
        return None
    return shipped_root() / path


def shipped_configs() -> Path:
    """The folder of the shipped configurations."""
    return shipped_root() / "configs"
