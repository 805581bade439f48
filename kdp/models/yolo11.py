"""YOLO11 detector (Jocher and Qiu 2024) of Ultralytics' layers, in a form that can be pruned.

Ultralytics is an optional package under AGPL-3.0 and is imported only when a network is built. Its
blocks C3k2 and C2PSA compute one convolution and split the result in two halves. Here these are two
convolutions with the same outputs: the halves feed different layers, so their channels are pruned
independently, which a single convolution followed by `chunk(2)` would not allow.

Shape suffixes: B batch, C channels, H W pixels, A anchors (of all levels), K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdp.errors import KdpError
from kdp.models.arguments import Count, Switch, check_classes, check_image_size
from kdp.models.ultralytics import import_ultralytics

SCALES = ("n", "s", "m", "l", "x")
STRIDES = (8, 16, 32)
"""Input pixels per cell of each level of the head."""
BINS = 16
"""Bins of the distribution over a distance (Generalized Focal Loss, Li et al. 2020)."""
TAPS = tuple(f"layers.{i}" for i in (6, 8, 13, 16, 19, 22))
"""Last layers of the stages of backbone and neck, where attention is transferred."""
LEVELS = (16, 19, 22)
"""The layers that the head reads."""
SCORES = r"layers\.23\.cv3\.\d\.2\."
"""Names of the weights of the head's last convolutions, one output for each class."""


class YOLO11(nn.Module):
    """A detector.

    Args:
        scale: n, s, m, l or x.
        classes: their names, in the order of the scores.
        image_size: side of the square training images, in pixels; stored with the weights.
        widths: output channels of every convolution in module order, 0 where the full network's
            remain; set by `kdp rebuild`.
        decoded: output boxes and probabilities instead of distributions and logits, for programs
            without kdp.

    Shapes: (B, 3, H, W) in 0..1 -> (B, 64 + K, A): distances of four sides in `BINS` bins each,
    and logits of the classes; A = HW (1/64 + 1/256 + 1/1024). Decoded (B, 4 + K, A): centre x, y,
    width, height in pixels, and probabilities. H and W are multiples of 32.

    Raises:
        KdpError: Ultralytics is not installed, or the widths do not fit together.
        ValueError: an argument is invalid.
    """

    def __init__(
        self,
        scale: str = "s",
        classes: Sequence[str] = (),
        image_size: int = 640,
        widths: Sequence[Count] = (),
        decoded: Switch = False,
    ) -> None:
        super().__init__()
        _check(scale, classes, image_size)
        self.scale, self.classes, self.image_size = scale, tuple(classes), image_size
        self.decoded = decoded
        self.layers, self.sources = _dense_layers(scale, len(self.classes))
        if any(widths):
            narrow(self, widths)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        *layers, head = self.layers
        outputs: list[Tensor] = []
        for layer, sources in zip(layers, self.sources, strict=False):
            if isinstance(sources, int):
                outputs.append(layer(outputs[sources] if outputs else x_BCHW))
            else:
                outputs.append(layer([outputs[i] for i in sources]))
        raw = head([outputs[i] for i in LEVELS])
        return decode(raw, x_BCHW.shape[-2:]) if self.decoded else raw


class Split(nn.Module):
    """C3k2 or C2PSA with its first convolution split in two; see the module docstring."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.first, self.second = (_half(block.cv1, i) for i in (0, 1))
        self.m: nn.Sequential | nn.ModuleList = block.m
        self.cv2: nn.Module = block.cv2

    def forward(self, x_BCHW: Tensor) -> Tensor:
        parts = [self.first(x_BCHW), self.second(x_BCHW)]
        if isinstance(
            self.m, nn.Sequential
        ):  # C2PSA concatenates only the end of the chain, C3k2 every link
            return self.cv2(torch.cat([parts[0], self.m(parts[1])], 1))
        for block in self.m:
            parts.append(block(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class Head(nn.Module):
    """Detect without decoding: distributions and logits of all levels, concatenated."""

    def __init__(self, detect: Any) -> None:
        super().__init__()
        self.cv2: nn.ModuleList = detect.cv2
        self.cv3: nn.ModuleList = detect.cv3

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        levels = [
            torch.cat([box(x), score(x)], 1).flatten(2)
            for x, box, score in zip(maps, self.cv2, self.cv3, strict=True)
        ]
        return torch.cat(levels, 2)


def decode(raw_BCA: Tensor, size: Sequence[int]) -> Tensor:
    """Decode distributions and logits into boxes and probabilities; shapes as in `YOLO11`.

    Args:
        raw_BCA: the network's raw output.
        size: (height, width) of its input.
    """
    centres_2A, strides_A = anchors(size, raw_BCA)
    sides, logits = raw_BCA[:, : 4 * BINS], raw_BCA[:, 4 * BINS :]
    bins = torch.arange(BINS, device=raw_BCA.device, dtype=raw_BCA.dtype)
    # A distance is the expectation over its bins, in cells (Generalized Focal Loss). A convolution
    # in place of a sum: OpenCV 4.8 reads the axis of an exported sum from the wrong place.
    shares = sides.unflatten(1, (4, BINS)).transpose(1, 2).softmax(1)
    distances = functional.conv2d(shares, bins.view(1, -1, 1, 1)).squeeze(1)
    left_top, right_bottom = distances.chunk(2, 1)
    low, high = centres_2A - left_top, centres_2A + right_bottom
    boxes = torch.cat([(low + high) / 2, high - low], 1) * strides_A
    return torch.cat([boxes, logits.sigmoid()], 1)


def anchors(size: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Centres of the cells of all levels in cells, (2, A) x above y, and their strides, (A,)."""
    centres, strides = [], []
    for stride in STRIDES:
        rows, columns = (
            torch.arange(side // stride, device=like.device, dtype=like.dtype) + 0.5
            for side in size
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centres.append(torch.stack([x.flatten(), y.flatten()]))
        strides.append(torch.full_like(centres[-1][0], stride))
    return torch.cat(centres, 1), torch.cat(strides)


def narrow(model: nn.Module, widths: Sequence[int]) -> None:
    """Set the output channels of every convolution in place and adapt the layers that follow.

    A forward pass reveals input channels, so this needs no knowledge of how layers connect.

    Raises:
        KdpError: the number of widths is wrong, or outputs that are added differ in width.
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    if len(widths) != len(convolutions):
        raise KdpError(f"{len(widths)} widths for {len(convolutions)} convolutions")
    wanted = {c: w for c, w in zip(convolutions, widths, strict=True) if w}
    hooks = [c.register_forward_pre_hook(_narrower(wanted.get(c))) for c in convolutions]
    hooks += [
        m.register_forward_pre_hook(_follow)
        for m in model.modules()
        if isinstance(m, nn.BatchNorm2d)
    ]
    training = model.training
    try:
        with torch.no_grad():
            device = convolutions[0].weight.device
            model.eval()(torch.zeros(1, 3, 32, 32, device=device))
    except RuntimeError as error:
        raise KdpError(f"the widths do not fit together: {error}") from error
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()


def _narrower(width: int | None) -> Any:
    def fit(conv: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Resize a convolution for the input that it is about to read."""
        assert isinstance(conv, nn.Conv2d)
        before, after = args[0].shape[1], width or conv.out_channels
        if conv.groups > 1:
            conv.groups = after = before
        if (conv.in_channels, conv.out_channels) == (before, after):
            return
        conv.in_channels, conv.out_channels = before, after
        shape = (after, before // conv.groups, *conv.kernel_size)
        conv.weight = nn.Parameter(conv.weight.new_empty(shape))
        if conv.bias is not None:
            conv.bias = nn.Parameter(conv.bias.new_empty(after))
        conv.reset_parameters()

    return fit


def _follow(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
    """Resize a normalisation to the channels that it is about to read."""
    assert isinstance(norm, nn.BatchNorm2d)
    width = args[0].shape[1]
    if norm.num_features == width:
        return
    norm.num_features = width
    for name in ("weight", "bias"):
        setattr(norm, name, nn.Parameter(getattr(norm, name).detach()[:width].clone()))
    for name in ("running_mean", "running_var"):
        setattr(norm, name, getattr(norm, name)[:width].clone())


def _dense_layers(scale: str, classes: int) -> tuple[nn.ModuleList, list[int | list[int]]]:
    """Layers of the full network with Ultralytics' initial weights, and the inputs of each."""
    tasks, torch_utils = (import_ultralytics(name) for name in ("nn.tasks", "utils.torch_utils"))
    plan = {**tasks.yaml_model_load(f"yolo11{scale}.yaml"), "nc": classes}
    layers, _ = tasks.parse_model(plan, ch=3, verbose=False)
    torch_utils.initialize_weights(layers)
    detect = layers[-1]
    detect.stride = torch.tensor([float(stride) for stride in STRIDES], device="cpu")
    detect.bias_init()
    return nn.ModuleList(_kdp_layer(layer) for layer in layers), [layer.f for layer in layers]


def _kdp_layer(layer: nn.Module) -> nn.Module:
    kind = type(layer).__name__
    if kind == "Detect":
        return Head(layer)
    return Split(layer) if kind in ("C3k2", "C2PSA") else layer


def _half(conv: Any, index: int) -> nn.Module:
    """One half of the output channels of a convolution with its normalisation and activation."""
    half = copy.deepcopy(conv)
    width = conv.conv.out_channels // 2
    channels = slice(index * width, (index + 1) * width)
    half.conv.out_channels = half.bn.num_features = width
    half.conv.weight = nn.Parameter(conv.conv.weight.detach()[channels].clone())
    for name in ("weight", "bias"):
        setattr(half.bn, name, nn.Parameter(getattr(conv.bn, name).detach()[channels].clone()))
    for name in ("running_mean", "running_var"):
        setattr(half.bn, name, getattr(conv.bn, name)[channels].clone())
    return half


def _check(scale: str, classes: Sequence[str], image_size: int) -> None:
    """Validate values that may come from a configuration file."""
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, not {scale!r}")
    check_classes(classes, least=1)
    check_image_size(image_size, least=STRIDES[-1], step=STRIDES[-1])
