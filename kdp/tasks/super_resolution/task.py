"""Image super-resolution: data, loss, PSNR and SSIM, and the prunable groups of CATANet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.config import Config, EmbeddedSamples, SamplesConfig
from kdp.data.pairs import Pair, embedded, hr_only, paired, small_images
from kdp.data.patches import PatchDataset, to_tensor
from kdp.devices import device_of
from kdp.errors import KdpError, join_names
from kdp.measure.image_quality import WINDOW, luma_psnr, psnr, ssim
from kdp.models.onnx_file import OnnxNetwork
from kdp.progress import Advance
from kdp.pruning.groups import Group
from kdp.tasks.base import Batch, Metrics, Prediction
from kdp.tasks.evaluation import SetwiseEvaluation, no_progress
from kdp.tasks.super_resolution.crops import comparison
from kdp.tasks.super_resolution.ensemble import self_ensemble
from kdp.tasks.super_resolution.groups import catanet_groups
from kdp.tasks.super_resolution.section import (
    CalibrationPatches,
    HrOnlySamples,
    PairedSamples,
    PatchOptions,
    TileConfig,
)
from kdp.tasks.super_resolution.tiles import run_in_tiles, upscale_image
from kdp.types import Arch


class SuperResolution(SetwiseEvaluation):
    """The task of CATANet; see `kdp.tasks.base.Task`."""

    primary_metric = "psnr"
    headline_metrics = ("psnr", "ssim")
    classes: tuple[str, ...] = ()

    def __init__(self, arch: Arch, config: Config) -> None:
        self.scale = int(arch.args.get("upscale", 2))
        self.config = config

    @property
    def metric_protocol(self) -> str:
        return f"x{self.scale}: PSNR and SSIM on Y (BT.601), {self.scale} px border cut off"

    def prepare(self, batch: Batch, augment: bool = True) -> Batch:
        return batch

    def confidence_map(self, output: Tensor) -> Tensor:
        raise KdpError("super-resolution has no confidence by position to weight a loss with")

    def inputs(self, batch: Batch) -> Tensor:
        return batch["lr"]

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean absolute error."""
        return F.l1_loss(output, batch["hr"])

    def sample_metrics(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """PSNR on Y of each patch, without the rounding and cropping of `evaluate`."""
        return {"psnr": luma_psnr(output, batch["hr"])}

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor:
        """Mean squared error of each image."""
        return (output - reference).square().mean(dim=(1, 2, 3))

    def training_data(self, length: int) -> PatchDataset:
        return self._patches(
            self.config.data.options(PatchOptions).patch_size, self.config.seed, length
        )

    def check_data(self) -> dict[str, int]:
        """Read every image at both resolutions; training images must hold a patch."""
        if self.config.train or self.config.finetune:
            _ = self.training_data(1)[0]
        for pairs in (self.training_samples, *self.evaluation_sets.values()):
            for pair in pairs:
                pair.lr(), pair.hr()
        return self.sample_counts

    @property
    def sample_counts(self) -> dict[str, int]:
        counts = {name: len(pairs) for name, pairs in self.evaluation_sets.items()}
        return {"training": len(self.training_samples), **counts}

    def calibration_data(self, count: int | None = None) -> Batch:
        """The patches with the most contrast among four times as many.

        On a patch of plain sky every unit looks unimportant.
        """
        section = self.config.prune.calibration
        side = section.options(CalibrationPatches).patch_size
        count = count or section.patches
        data = self._patches(side, self.config.seed + 1, 4 * count)
        samples = [data[i] for i in range(len(data))]
        contrast = torch.stack([sample["lr"].std() for sample in samples])
        chosen = contrast.argsort(descending=True, stable=True)[:count].sort().values
        return {k: torch.stack([samples[int(i)][k] for i in chosen]) for k in ("lr", "hr")}

    def _patches(self, size: int, seed: int, length: int) -> PatchDataset:
        augment = self.config.data.augment
        return PatchDataset(self.training_samples, self.scale, size, seed, augment, length)

    @cached_property
    def training_samples(self) -> list[Pair]:
        """The images to cut training patches from, listed once."""
        return load_pairs(self.config.data, self.scale, validation=False)

    @cached_property
    def evaluation_sets(self) -> dict[str, list[Pair]]:
        """The evaluation images, by set."""
        sets = self.config.evaluation
        return {name: load_pairs(s, self.scale, validation=True) for name, s in sets.items()}

    def evaluate_set(
        self, models: Sequence[nn.Module], samples: Sequence[Pair], advance: Advance
    ) -> list[Metrics]:
        """Mean PSNR (dB) and SSIM (0..1)."""
        scores: list[list[tuple[float, float]]] = [[] for _ in models]
        for pair in samples:
            lr, hr = pair.lr(), pair.hr()
            for model, own in zip(models, scores, strict=True):
                output = self.upscale(model, lr)
                own.append(self._quality(output, hr))
            advance(1)
        return [_means(own, "psnr", "ssim") for own in scores]

    def _quality(self, output: np.ndarray, hr: np.ndarray) -> tuple[float, float]:
        return psnr(output, hr, self.scale), ssim(output, hr, self.scale)

    def validate_set(self, model: nn.Module, samples: Sequence[Pair]) -> Metrics:
        """Means over the images, of the loss too."""
        device, tiles = device_of(model), self.tiles_for(model)
        scores = []
        for pair in samples:
            hr = pair.hr()
            output = run_in_tiles(model, to_tensor(pair.lr()).to(device), self.scale, tiles)
            loss = self.loss(output, {"hr": to_tensor(hr).to(device)})
            scores.append((*self._quality(_image(output.clamp(0, 1)), hr), float(loss)))
        return _means(scores, "psnr", "ssim", "loss")

    def predict_set(self, model: nn.Module, samples: Sequence[Pair]) -> Iterator[Prediction]:
        for pair in samples:
            metrics = self.evaluate_set([model], [pair], no_progress)[0]
            scores = {"psnr": f"{metrics['psnr']:.4f}", "ssim": f"{metrics['ssim']:.6f}"}
            yield {"name": pair.name, **scores}

    def upscale(self, model: nn.Module, lr: np.ndarray, ensemble: bool = False) -> np.ndarray:
        """Super-resolve an (h, w, 3) uint8 image, in tiles where it is large.

        Args:
            model: in eval mode.
            lr: the image.
            ensemble: average over the eight flips and rotations, before rounding.
        """

        def run(image_CHW: Tensor) -> Tensor:
            return upscale_image(model, image_CHW, self.scale, tiles)

        tiles = self.tiles_for(model)
        image = to_tensor(lr).to(device_of(model))
        output = self_ensemble(run, image) if ensemble else run(image)
        return _image(output)

    def tiles_for(self, model: nn.Module) -> TileConfig:
        """Tiles as configured, or of the one size that an exported network takes."""
        tiles = self.config.section(TileConfig)
        if not isinstance(model, OnnxNetwork) or model.fixed_size is None:
            return tiles
        side = min(model.fixed_size)
        return TileConfig(size=side, overlap=min(tiles.overlap, side // 2))

    def comparison_images(
        self, models: Sequence[nn.Module], labels: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Bicubic, each network and HR, in the part of each image that differs most."""
        for name, pairs in self.evaluation_sets.items():
            for number, pair in enumerate(pairs, 1):
                outputs = {
                    label: self.upscale(model, pair.lr())
                    for label, model in zip(labels, models, strict=True)
                }
                note = f"image {number} of {len(pairs)}"
                image = comparison(pair.lr(), outputs, pair.hr(), self.scale, note)
                yield f"{name}_{pair.name}", image

    @property
    def input_size(self) -> tuple[int, int]:
        return self.config.measure.input_size or (64, 64)

    @property
    def latency_size(self) -> tuple[int, int]:
        return self.config.measure.latency_size or (128, 128)

    def example(self, size: Sequence[int]) -> Tensor:
        return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))

    def groups(self, model: nn.Module) -> list[Group]:
        return catanet_groups(model)

    def taps(self, model: nn.Module) -> list[str]:
        """The convolution that ends each block."""
        return [name for name, _ in model.named_modules() if name.startswith("mid_convs.")]


def _image(output_CHW: Tensor) -> np.ndarray:
    """(3, h, w) in 0..1 -> (h, w, 3) uint8."""
    return (output_CHW * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _means(scores: Sequence[Sequence[float]], *names: str) -> Metrics:
    return {n: float(v) for n, v in zip(names, np.mean(scores, axis=0), strict=True)}


def load_pairs(section: SamplesConfig, scale: int, validation: bool) -> list[Pair]:
    """The pairs that a section of the configuration describes.

    Raises:
        KdpError: a folder that the kind needs is not given, missing or empty, or an image to
            evaluate on cannot be read or is too small.
    """
    if isinstance(section, EmbeddedSamples):
        return embedded(scale, validation)
    if isinstance(section, HrOnlySamples):
        pairs = hr_only(section.hr, scale, section.cache, complete=validation)
    elif isinstance(section, PairedSamples):
        template = section.lr_template
        pairs = paired(section.hr, section.lr, scale, template, complete=validation)
    else:
        raise KdpError(
            f"pairs of images are of kind 'paired', 'hr_only' or 'embedded', not {section.kind!r}"
        )
    if validation:
        _check_sizes(pairs, scale)
    return pairs


def _check_sizes(pairs: Sequence[Pair], scale: int) -> None:
    """Make sure that quality can be measured: SSIM has a window, without the border cut off."""
    least = -(-WINDOW // scale) + 2
    if small := small_images(pairs, least):
        raise KdpError(
            f"the LR images of {join_names(small)} are too small to measure SSIM on: each side "
            f"needs {least} pixels"
        )
