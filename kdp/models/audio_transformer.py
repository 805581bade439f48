"""The Audio Spectrogram Transformer of `transformers`, as a teacher for acoustic scenes.

AST is by Gong et al. (arXiv 2104.01778). Instead of its own front end it reads the log-mel
spectrograms of its students, resized to its bins and frames and normalised by running statistics.
Shape suffixes: B batch, F mel bins, T frames, P patches, C width.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.data.mel_settings import MelArguments
from kdp.errors import KdpError, first_line, join_names, suggest
from kdp.files import check_regular
from kdp.log import log
from kdp.models.arguments import Size, check_classes
from kdp.models.mobile import SCENES
from kdp.models.size_limit import limit_size
from kdp.models.torchvision_shim import install

NEEDED = "audio transformers need another package: pip install 'transformers>=5'"
KEPT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
INPUT = ("num_mel_bins", "patch_size", "frequency_stride", "time_stride")
FIXED = ("hidden_act", "layer_norm_eps", "qkv_bias")
"""Settings of `transformers.ASTConfig` that are no arguments."""
MAX_FRAMES = 10_000
"""100 seconds; attention takes memory by the square of the frames."""
FRAMES = 101
"""Frames of one second at the 10 ms hop that published networks were trained with."""


class AudioTransformer(nn.Module):
    """AST with one linear layer on the mean of its two class tokens.

    Args:
        classes: their names, in the order of the logits.
        frames: number of frames that the input is resized to.
        log_mel: which spectrograms it was trained on, for its task.
        sizes: arguments of `transformers.ASTConfig`, those of `KEPT` and `INPUT`; a small network
            by default.

    Shapes: (B, 1, F, T) log-mel -> (B, classes) logits.

    Raises:
        KdpError: transformers is not installed.
    """

    def __init__(
        self,
        classes: Sequence[str] = SCENES,
        frames: Size = FRAMES,
        log_mel: MelArguments = None,
        **sizes: Size,
    ) -> None:
        super().__init__()
        check_classes(classes, least=2)
        if frames > MAX_FRAMES:
            raise ValueError(f"frames must be at most {MAX_FRAMES}, not {frames}")
        install()
        try:
            from transformers import ASTConfig, ASTModel
        except ImportError as error:
            raise KdpError(NEEDED) from error
        small: dict[str, Any] = dict(zip(KEPT, (192, 6, 3, 768), strict=True))
        if unknown := sizes.keys() - {*KEPT, *INPUT}:
            name = min(unknown)
            raise ValueError(f"no argument {name!r}; {suggest(name, (*KEPT, *INPUT))}")
        config: Any = ASTConfig(**{**small, **sizes}, max_length=frames)
        if min(frames, config.num_mel_bins) < config.patch_size:
            raise ValueError(
                f"frames and num_mel_bins must be patch_size={config.patch_size} at least"
            )
        self.classes = tuple(classes)
        self.size = (config.num_mel_bins, frames)
        self.norm = nn.BatchNorm2d(1, affine=False)
        self.body: Any = ASTModel(config)
        self.head = nn.Linear(config.hidden_size, len(classes))

    def forward(self, x_B1FT: Tensor) -> Tensor:
        x_B1FT = F.interpolate(x_B1FT, self.size, mode="bilinear", align_corners=False)
        # AST was trained on inputs of a standard deviation of one half.
        x_BTF = self.norm(x_B1FT).squeeze(1).transpose(1, 2) / 2
        return self.head(self.body(x_BTF).pooler_output)


def pretrained(folder: Path, args: Mapping[str, Any]) -> tuple[AudioTransformer, dict[str, Any]]:
    """Load weights that `transformers` saved; returns the network and all its arguments.

    The widths and the depth are those of the folder; a line names those of `args` that differ.
    Position embeddings are cropped from the middle of the longer spectrogram it was trained on. The
    classifier is reinitialised.

    Args:
        folder: contains `config.json` and `model.safetensors`; pickles are not read.
        args: arguments of `AudioTransformer` that override those in the folder, but for `KEPT`.

    Raises:
        KdpError: a file is missing or not of an AST, or the two files or `args` do not fit.
    """
    whole = _read(folder)
    frames = int(whole.config.max_length)
    own = {key: int(getattr(whole.config, key)) for key in KEPT}
    spectrogram = {key: int(getattr(whole.config, key)) for key in INPUT}
    merged = {"frames": min(frames, FRAMES), **spectrogram, **args, **own}
    _log_replaced(folder, args, own)
    params = whole.state_dict()
    positions = "embeddings.position_embeddings"
    try:
        if merged["frames"] > frames:
            raise ValueError(f"frames={merged['frames']}, and it was trained on {frames}")
        model = AudioTransformer(**merged)
        params[positions] = _cropped_positions(params[positions], model, frames)
        model.body.load_state_dict(params)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise KdpError(f"{folder} does not fit these arguments: {reason}") from error
    return model, merged


def _log_replaced(folder: Path, args: Mapping[str, Any], own: Mapping[str, int]) -> None:
    """Say which arguments the folder decides instead of the configuration."""
    sizes = [f"{key} {value}" for key, value in own.items() if args.get(key, value) != value]
    if sizes:
        log.info(f"Sizes of {folder} replace those of model.args: {', '.join(sizes)}")


def _read(folder: Path) -> Any:
    """The network of a folder, without a classifier; `transformers` prints nothing of its own."""
    install()
    try:
        from transformers import ASTConfig, ASTModel
        from transformers.utils.logging import disable_progress_bar, set_verbosity
    except ImportError as error:
        raise KdpError(NEEDED) from error
    set_verbosity(logging.CRITICAL)
    disable_progress_bar()
    try:
        for path in folder.iterdir():
            if path.exists() and not path.is_dir():
                check_regular(path)
        # The folder says how large the network is: it is built without values first.
        with torch.device("meta"), limit_size():
            ASTModel(ASTConfig.from_pretrained(folder, local_files_only=True))
        loaded: Any = ASTModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except KdpError:
        raise
    except Exception as error:  # a damaged file makes transformers raise nearly anything
        reason = first_line(error)
        raise KdpError(f"{folder} holds no audio transformer in safetensors: {reason}") from error
    model, report = loaded
    _check_computed(folder, model.config, ASTConfig())
    _check_complete(folder, report)
    return model


def _check_computed(folder: Path, config: Any, default: Any) -> None:
    """Refuse a network that computes something else than `AudioTransformer` of its sizes.

    Raises:
        KdpError: a setting of `FIXED` is not the default.
    """
    for key in FIXED:
        value, expected = getattr(config, key), getattr(default, key)
        if value != expected:
            raise KdpError(
                f"{folder / 'config.json'}: {key} is {value!r}; kdp knows {expected!r} only"
            )


def _check_complete(folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse weights that `transformers` would fill with random values, or leave out.

    Raises:
        KdpError: a tensor of the network is missing, or the file holds further layers.
    """
    path = folder / "model.safetensors"
    if missing := sorted(report["missing_keys"]):
        raise KdpError(f"{path} lacks {join_names(missing, 2)}, which config.json describes")
    further = sorted(key for key in report["unexpected_keys"] if not key.startswith("classifier."))
    if further:
        raise KdpError(
            f"{path} holds {join_names(further, 2)}, which config.json does not describe"
        )


def _cropped_positions(positions_1PC: Tensor, model: AudioTransformer, frames: int) -> Tensor:
    """Position embeddings for fewer frames, cropped from the middle of the time axis.

    The first two embeddings belong to the class and distillation tokens and stay.
    """
    embeddings = model.body.embeddings
    high, wide = embeddings.get_shape(embeddings.config)
    before = (frames - embeddings.config.patch_size) // embeddings.config.time_stride + 1
    tokens, patches = positions_1PC[:, :2], positions_1PC[:, 2:]
    first = max((before - wide) // 2, 0)
    grid = patches.unflatten(1, (high, before))[:, :, first : first + wide]
    return torch.cat([tokens, grid.flatten(1, 2)], dim=1)
