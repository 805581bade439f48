"""The Audio Spectrogram Transformer of `transformers`, as a teacher of acoustic scenes.

AST is by Gong et al. (arXiv 2104.01778). It reads the same log-mel as the students: resized to its
own bins and frames, and normalised by statistics that it learns, instead of its own front end.
Shape suffixes: B batch, F mel bins, T frames, P patches, C width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.errors import KdpError, first_line
from kdp.models.class_names import check_classes
from kdp.models.mobile import SCENES
from kdp.models.torchvision_shim import install

NEEDED = "audio transformers need another package: pip install 'transformers>=5'"
KEPT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
INPUT = ("num_mel_bins", "patch_size", "frequency_stride", "time_stride")
FRAMES = 101
"""Of a second in steps of 10 ms, which published networks were trained with."""


class AudioTransformer(nn.Module):
    """AST and one linear layer on the mean of its two class tokens.

    Args:
        classes: their names, in the order of the logits.
        frames: length of the spectrogram inside; the input is resized to it.
        sizes: any of `transformers.ASTConfig`; a small network where not given.

    Shapes: (B, 1, F, T) log-mel -> (B, classes) logits.

    Raises:
        KdpError: transformers is not installed.
    """

    def __init__(self, classes: Sequence[str] = SCENES, frames: int = FRAMES, **sizes: int) -> None:
        super().__init__()
        check_classes(classes, least=2)
        install()
        try:
            from transformers import ASTConfig, ASTModel
        except ImportError as error:
            raise KdpError(NEEDED) from error
        small: dict[str, Any] = dict(zip(KEPT, (192, 6, 3, 768), strict=True))
        config: Any = ASTConfig(**{**small, **sizes}, max_length=frames)
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
    """A network with the weights of a folder that `transformers` wrote, and its arguments.

    Positions are cut out of the middle of the longer spectrogram it was trained on. The classifier
    is new.

    Args:
        folder: with `config.json` and `model.safetensors`; no pickle is read.
        args: of `AudioTransformer`, those that the folder does not say.

    Raises:
        KdpError: a file is missing or is not of an AST.
    """
    install()
    try:
        from transformers import ASTModel

        whole = ASTModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except ImportError as error:
        raise KdpError(NEEDED) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = first_line(error)
        raise KdpError(f"{folder} holds no audio transformer in safetensors: {reason}") from error
    found = {key: int(getattr(whole.config, key)) for key in (*KEPT, *INPUT)}
    merged = {**found, **args}
    model = AudioTransformer(**merged)
    params = whole.state_dict()
    positions = "embeddings.position_embeddings"
    try:
        params[positions] = _shortened(params[positions], model, int(whole.config.max_length))
        model.body.load_state_dict(params)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise KdpError(f"{folder} does not fit these arguments: {reason}") from error
    return model, merged


def _shortened(positions_1PC: Tensor, model: AudioTransformer, frames: int) -> Tensor:
    """Positions of the patches of a shorter spectrogram, from the middle of the longer one."""
    embeddings = model.body.embeddings
    high, wide = embeddings.get_shape(embeddings.config)
    before = (frames - embeddings.config.patch_size) // embeddings.config.time_stride + 1
    tokens, patches = positions_1PC[:, :2], positions_1PC[:, 2:]
    first = max((before - wide) // 2, 0)
    grid = patches.unflatten(1, (high, before))[:, :, first : first + wide]
    return torch.cat([tokens, grid.flatten(1, 2)], dim=1)
