"""KDSR: super-resolution with depthwise kernels predicted from an implicit degradation embedding.

Source: Xia, Zhang, Wang, Tian, Yang, Timofte, Van Gool, Knowledge Distillation based Degradation Estimation for Blind
Super-Resolution (ICLR 2023), section 3. Widths and depths of the published sizes were chosen to match the published
parameter counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarestore.models.dynamic import KERNEL, channels_last, dynamic_depthwise
from metarestore.models.kdsr_start import blind_to_brightness, excite, shrink, start_around_one, start_bilinear
from metarestore.models.linear_tail import RADIUS, Layer, linear_tail
from metarestore.models.network import Channels, Network, Restore

EncoderKind = Literal["student", "teacher", "none"]
SizeName = Literal["tiny", "s", "m", "l"]
EmbeddingOf = Literal["image", "task"]

_SLOPE = 0.1
_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of DIV2K, which is subtracted from the input and added to the output."""
_STRIP = 2**18
"""LR pixels of a large image that the encoder processes at once; its widest maps have 4C channels."""


class Size(NamedTuple):
    """Width and depths.

    Attributes:
        features: Channels C.
        blocks: Blocks of the restorer.
        encoder_blocks: Residual blocks of the encoder.
    """

    features: int
    blocks: int
    encoder_blocks: int


SIZES: dict[SizeName, Size] = {
    "tiny": Size(16, 14, 4),
    "s": Size(32, 32, 6),
    "m": Size(64, 53, 9),
    "l": Size(128, 28, 5),
}


class Embeddings(NamedTuple):
    """The degradation embeddings of images.

    Attributes:
        distilled: D′, (B, 4C): matched between student and teacher by distillation.
        modulating: D, (B, C): the restorer's kernels are predicted from it.
    """

    distilled: Tensor
    modulating: Tensor


class Encoder(nn.Module):
    """KD-IDE: encodes the degradation of images in an implicit embedding.

    Args:
        planes: Channels of its input.
        features: C.
        blocks: Residual blocks.

    Source: section 3.1.
    """

    def __init__(self, planes: int, features: int, blocks: int) -> None:
        super().__init__()
        wide = 4 * features
        self.body = nn.Sequential(
            _conv(planes, features),
            _rectifier(),
            *(_Residual(features) for _ in range(blocks)),
            _conv(features, 2 * features),
            _rectifier(),
            _conv(2 * features, 2 * features),
            _rectifier(),
            _conv(2 * features, wide),
            _rectifier(),
        )
        self.mix = nn.Sequential(nn.Linear(wide, wide), _rectifier(), nn.Linear(wide, wide), _rectifier())
        self.compress = nn.Sequential(nn.Linear(wide, features), _rectifier())
        self.receptive_field = 1 + 2 * blocks + 3
        """Receptive-field radius of the last maps, in pixels."""

    def forward(self, images: Tensor) -> Embeddings:
        """Encodes the degradation of images (B, planes, h, w)."""
        return self.embed(self.body(channels_last(images)).mean(dim=(-2, -1)))

    def in_strips(self, images: Tensor, strip: int = _STRIP) -> Embeddings:
        """Computes `forward` up to rounding, in strips of about `strip` pixels to save memory."""
        height, width = images.shape[-2:]
        rows = max(strip // width, 1)
        total = images.new_zeros(())
        for top in range(0, height, rows):
            first, last = max(top - self.receptive_field, 0), min(top + rows + self.receptive_field, height)
            maps = self.body(channels_last(images[..., first:last, :]))
            total = total + maps[..., top - first :, :][..., :rows, :].sum(dim=(-2, -1))
        return self.embed(total / (height * width))

    def embed(self, pooled: Tensor) -> Embeddings:
        """Maps the spatial means of the last maps, (B, 4C), to embeddings."""
        distilled = self.mix(pooled)
        return Embeddings(distilled, self.compress(distilled))


class Restorer(nn.Module):
    """The super-resolution network: restores LR images, conditioned on embeddings.

    Args:
        scale: Upscaling factor s: 2, 3 or 4.
        features: C.
        blocks: Number of blocks.

    Source: section 3.2.
    """

    mean: Tensor

    def __init__(self, scale: int, features: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.factors = (2, 2) if scale == 4 else (scale,)
        self.head = _conv(3, features)
        self.blocks = nn.ModuleList(_Block(features) for _ in range(blocks))
        self.join = _conv(features, features)
        self.grow = nn.ModuleList(_conv(features, features * factor**2) for factor in self.factors)
        self.tail = _conv(features, 3)

    def forward(self, lr: Tensor, embedding: Tensor) -> Tensor:
        """Restores LR (B, 3, h, w) to (B, 3, s·h, s·w), given embeddings D (B, C), or (1, C) for all images."""
        head = self.head(channels_last(lr - self.mean))
        embedding = embedding.expand(len(lr), -1)
        features = head
        for block in self.blocks:
            features = block(features, embedding)
        return linear_tail(self.join(features) + head, list(self._tail())) + self.mean

    def _tail(self) -> Iterator[Layer]:
        for layer, factor in zip((*self.grow, self.tail), (*self.factors, 1), strict=True):
            yield Layer(layer.weight, _bias(layer), factor)


class KDSR(Network):
    """The restorer with a degradation encoder.

    Args:
        scale: Upscaling factor s: 2, 3 or 4.
        size: Name in `SIZES`.
        estimator: Kind of the degradation encoder: a student's takes LR, a teacher's LR and HR; with "none", the
            embedding is 1 for every image.
        channels: RGB.
        embedding: Whether each image is restored with its own embedding, or all images of a batch with their mean
            embedding; they must belong to one task then.

    Raises:
        ValueError: The scale is not supported.
    """

    interchangeable: ClassVar[tuple[str, ...]] = ("estimator", "embedding")

    def __init__(
        self,
        scale: int,
        size: SizeName,
        estimator: EncoderKind,
        channels: Channels,
        embedding: EmbeddingOf,
    ) -> None:
        super().__init__()
        if scale not in {2, 3, 4}:
            raise ValueError(f"scale must be 2, 3 or 4, got {scale}")
        self.scale = scale
        self.channels = channels
        self.size = size
        self.embedding_of = embedding
        self.encoder_kind = estimator
        self.privileged = estimator == "teacher"
        self.features, blocks, depth = SIZES[size]
        planes = 3 + 3 * scale**2 if self.privileged else 3
        self.estimator = None if estimator == "none" else Encoder(planes, self.features, depth)
        self.restorer = Restorer(scale, self.features, blocks)
        self._start()

    def _start(self) -> None:
        """Draws the initial weights."""
        restorer = self.restorer
        excite(self, _SLOPE)
        blocks = [block for block in restorer.modules() if isinstance(block, _Block)]
        shrink((block.kernels[-1] for block in blocks), 1 / KERNEL)  # an output pixel sums KERNEL² products
        shrink(block.mix for block in blocks)
        shrink(block.body[-1] for block in self.modules() if isinstance(block, _Residual))
        if self.estimator is not None:
            blind_to_brightness(self.estimator.body[0])
            start_around_one(self.estimator.compress[0])
        shrink([restorer.join])
        start_bilinear(restorer.head, restorer.grow, restorer.factors, restorer.tail)

    @property
    def receptive_field(self) -> int:
        """Receptive-field radius in LR pixels, given the embedding."""
        return 1 + 2 * len(self.restorer.blocks) + 1 + RADIUS

    @property
    def feature_layers(self) -> Mapping[str, str]:
        """The restorer's maps after the first convolution, the middle and last block, and before upscaling."""
        last = len(self.restorer.blocks) - 1
        parts = {"head": "head", "middle": f"blocks.{last // 2}", "blocks": f"blocks.{last}", "join": "join"}
        return {name: f"restorer.{part}" for name, part in parts.items()}

    def for_student(self) -> dict[str, Tensor]:
        """Returns the parameters of the restorer and of the layer from D′ to D.

        The student learns the teacher's D′, so it can reuse that layer (published students train it from scratch).
        """
        kept = ("restorer.", "estimator.compress.")
        return {name: value for name, value in super().for_student().items() if name.startswith(kept)}

    def started_from(self, other: Network) -> dict[str, Tensor]:
        """Returns the parameters of another KDSR; if its encoder is of another kind, the restorer's only.

        A new encoder outputs an embedding near 1, the embedding of a network without an encoder.
        """
        taken = super().started_from(other)
        own = {name: parameter.detach() for name, parameter in self.named_parameters()}
        if isinstance(other, KDSR) and self.encoder_kind == other.encoder_kind:
            return taken
        return {name: taken[name] if name.startswith("restorer.") else value for name, value in own.items()}

    def encode(self, lr: Tensor, hr: Tensor | None = None) -> Embeddings:
        """Computes both degradation embeddings of images.

        Args:
            lr: (B, 3, h, w) in [0, 1].
            hr: (B, 3, s·h, s·w), for a teacher.

        Raises:
            ValueError: HR is missing for a teacher, or the network has no encoder.
        """
        if self.estimator is None:
            raise ValueError("the network has no degradation encoder; build it with estimator: student")
        embeddings: Embeddings = self.estimator(self.encoder_input(lr, hr))
        return embeddings

    def describe(self, lr: Tensor, hr: Tensor | None = None, crop: int | None = None) -> Tensor:
        """Computes the embedding D (B, C) of the degradation of images: the task descriptor.

        Without an encoder every entry is 1: with D = 0 the predicted kernels, which have no bias, would all be 0, and
        the network would be linear.

        Args:
            lr: (B, 3, h, w) in [0, 1].
            hr: (B, 3, s·h, s·w), for a teacher.
            crop: Size of the central LR crop that is used instead of the whole image: a faster approximation.
        """
        if self.estimator is None:
            return lr.new_ones(len(lr), self.features)
        return self.encode(_middle(lr, crop), None if hr is None else _middle(hr, crop, self.scale)).modulating

    def describe_photograph(self, lr: Tensor, crop: int | None = None) -> Tensor:
        """Computes `describe` up to rounding for LR of any size, in strips to save memory; without autograd.

        Args:
            lr: (B, 3, h, w) in [0, 1].
            crop: As for `describe`.
        """
        if self.estimator is None:
            return lr.new_ones(len(lr), self.features)
        with torch.no_grad():
            return self.estimator.in_strips(self.encoder_input(_middle(lr, crop), None)).modulating

    def forward(self, lr: Tensor, hr: Tensor | None = None, embedding: Tensor | None = None) -> Tensor:
        """Restores LR (B, 3, h, w) in [0, 1] to (B, 3, s·h, s·w), not clamped.

        Args:
            lr: LR images.
            hr: (B, 3, s·h, s·w), for a teacher without a given embedding.
            embedding: D, (B, C) or (1, C), used instead of the encoder's output.
        """
        restored: Tensor = self.restorer(lr, self.shared(self.describe(lr, hr)) if embedding is None else embedding)
        return restored

    def shared(self, embedding: Tensor) -> Tensor:
        """Returns the embeddings D that images of one task are restored with: their own (N, C) or the mean (1, C)."""
        return embedding if self.embedding_of == "image" else embedding.mean(dim=0, keepdim=True)

    def for_image(self, lr: Tensor, crop: int | None = None) -> Restore:
        """Returns a function that restores parts of an image LR (1, 3, h, w) with the embedding of the whole image.

        Args:
            lr: The whole image.
            crop: As for `describe`.
        """
        if self.estimator is None:
            return self
        return partial(self.restorer, embedding=self.describe_photograph(lr, crop))

    def encoder_input(self, lr: Tensor, hr: Tensor | None) -> Tensor:
        """Returns the encoder's input for images (..., 3, h, w): LR, or for a teacher (..., 3 + 3s², h, w).

        For a teacher, the pixel-unshuffled HR image is concatenated to LR.

        Raises:
            ValueError: HR is missing for a teacher.
        """
        if not self.privileged:
            return lr
        if hr is None:
            raise ValueError("a KDSR teacher needs the HR images as input; use a student to restore")
        return torch.cat([lr, F.pixel_unshuffle(hr, self.scale)], dim=-3)


class _Residual(nn.Module):
    """A residual block of two convolutions with a rectifier in between."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(features, features), _rectifier(), _conv(features, features))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x).add_(x)
        return result


class _Block(nn.Module):
    """IDR-DCRB: a residual block of a dynamic depthwise and an ordinary convolution."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.kernels = nn.Sequential(
            nn.Linear(features, features, bias=False),
            _rectifier(),
            nn.Linear(features, features * KERNEL**2, bias=False),
        )
        self.rectifier = nn.LeakyReLU(_SLOPE)  # not in place: autograd forbids it for the output of custom functions
        self.mix = _conv(features, features)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        kernels = self.kernels(embedding).unflatten(-1, (x.shape[1], KERNEL, KERNEL))
        result: Tensor = self.mix(self.rectifier(dynamic_depthwise(x, kernels))).add_(x)
        return result


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _rectifier() -> nn.LeakyReLU:
    return nn.LeakyReLU(_SLOPE, inplace=True)


def _bias(layer: nn.Module) -> Tensor:
    if not isinstance(layer.bias, Tensor):
        raise TypeError("the last layers of KDSR need their bias")
    return layer.bias


def _middle(images: Tensor, crop: int | None, scale: int = 1) -> Tensor:
    """Returns the central crop of images (B, C, s·h, s·w), at most `crop` LR pixels wide and high."""
    if crop is None:
        return images
    height, width = (side // scale for side in images.shape[-2:])
    high, wide = min(crop, height), min(crop, width)
    top, left = scale * ((height - high) // 2), scale * ((width - wide) // 2)
    return images[..., top : top + scale * high, left : left + scale * wide]
