"""Compression, with real encoders or a differentiable model of JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import cv2
import numpy as np
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range
from metarestore.degradations.base import Context, Degradation, Image, Params, number, per_image, register

if TYPE_CHECKING:
    from torch import Tensor

Quality = Annotated[Range, Bounds(ge=1, le=100, integer=True)]

_SAMPLING = {
    420: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    422: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    444: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}


def _through_file(image: Image, extension: str, settings: Sequence[int]) -> Image:
    """Rounds one image (H, W, 3) to 8 bits, encodes it in memory in the format of `extension`, and decodes it."""
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    # OpenCV expects BGR: without the swap, the luma weights of red and blue would be exchanged.
    _, code = cv2.imencode(extension, cv2.cvtColor(levels, cv2.COLOR_RGB2BGR), settings)
    decoded = cv2.cvtColor(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
    return np.asarray(decoded / np.float32(255), dtype=np.float32)


def differentiable_jpeg(images: Tensor, quality: int) -> Tensor:
    """Models JPEG with 4:2:0 chroma on `images` (N, 3, H, W), with gradients.

    Rounding is approximated by a cubic, so errors are slightly smaller than those of a real codec. Sizes that are not a
    multiple of 16 are padded by repeating the last row and column.

    Source: Reich et al., Differentiable JPEG: The Devil is in the Details (2024), as implemented by kornia.
    """
    import torch
    from kornia.enhance import jpeg_codec_differentiable

    return jpeg_codec_differentiable(images, torch.tensor([float(quality)]))


def _differentiable_image(image: Image, quality: int) -> Image:
    """Applies `differentiable_jpeg` to one image (H, W, 3)."""
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    return np.asarray(differentiable_jpeg(batch, quality)[0].permute(1, 2, 0).numpy(), dtype=np.float32)


@register
class Jpeg(Degradation):
    """Encodes as baseline JPEG and decodes.

    Source: ITU-T T.81 (1992); the quality scale is that of the Independent JPEG Group.
    """

    examples: ClassVar = (
        {"quality": [30, 95]},
        {"quality": 30, "subsampling": 444, "codec": "libjpeg"},
        {"quality": [20, 80], "subsampling": 422, "codec": "libjpeg"},
        {"quality": [10, 90], "codec": "differentiable"},
    )

    op: Literal["jpeg"] = "jpeg"
    quality: Quality
    """libjpeg quality, 1..100."""
    subsampling: Literal[420, 422, 444] = 420
    """Chroma subsampling: 420 halves both axes, 422 the horizontal one, 444 none."""
    codec: Literal["auto", "libjpeg", "differentiable"] = "auto"
    """`libjpeg` rounds to 8 bits and encodes a real file in memory, on the CPU. `differentiable` models JPEG with
    gradients on any device, at subsampling 420 only. `auto` is `libjpeg`, except with the torch backend at subsampling
    420."""

    @model_validator(mode="after")
    def _subsampling_of_codec(self) -> Self:
        if self.codec == "differentiable" and self.subsampling != 420:
            text = "codec differentiable supports only subsampling 420, got {given}; use libjpeg or remove subsampling"
            raise PydanticCustomError("jpeg", text, {"given": self.subsampling})
        return self

    @staticmethod
    def apply(images: Tensor, params: Params, context: Context) -> Tensor:
        """Compresses each of `images` (N, 3, H, W)."""
        quality, subsampling = int(number(params, "quality")), int(number(params, "subsampling"))
        real = params["codec"] == "libjpeg" or (
            params["codec"] == "auto" and (context.backend == "opencv" or subsampling != 420)
        )
        if real:
            sampling = _SAMPLING[subsampling]
            settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
            return per_image(images, lambda image, _: _through_file(image, ".jpg", settings))
        if context.backend == "torch":
            return differentiable_jpeg(images, quality)
        return per_image(images, lambda image, _: _differentiable_image(image, quality))


@register
class Webp(Degradation):
    """Rounds to 8 bits, encodes as lossy WebP and decodes (libwebp through OpenCV, on the CPU).

    Source: Bankoski et al., VP8 Data Format and Decoding Guide, RFC 6386 (2011).
    """

    examples: ClassVar = ({"quality": [20, 90]}, {"quality": 1}, {"quality": 100})

    op: Literal["webp"] = "webp"
    quality: Quality
    """libwebp quality, 1..100; 100 is lossy too. Chroma is always subsampled by 2 on both axes."""

    @staticmethod
    def apply(images: Tensor, params: Params, context: Context) -> Tensor:
        """Compresses each of `images` (N, 3, H, W)."""
        settings = [cv2.IMWRITE_WEBP_QUALITY, int(number(params, "quality"))]
        return per_image(images, lambda image, _: _through_file(image, ".webp", settings))
