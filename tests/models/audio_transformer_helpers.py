"""A tiny audio transformer, as `transformers` saves it."""

from __future__ import annotations

from pathlib import Path

from kdp.models.torchvision_shim import install

SIZES = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 16,
    "num_mel_bins": 32,
}


def write_pretrained(folder: Path, **sizes: int) -> Path:
    """Write a network with random weights and return its folder.

    Args:
        folder: to write `config.json` and `model.safetensors` into.
        sizes: arguments of `ASTConfig`, in place of those of `SIZES`.
    """
    install()
    from transformers import ASTConfig, ASTForAudioClassification

    ASTForAudioClassification(ASTConfig(**{**SIZES, **sizes})).save_pretrained(folder)
    return folder
