"""Compression, by the real encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import cv2
import numpy as np
from torch import Tensor

from metarestore.config.ranges import Bounds, Range
from metarestore.degradations.base import Degradation, Image, Params, number, per_image, register

_SAMPLING = {
    420: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    422: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    444: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}


@register
class Jpeg(Degradation):
    """Rounds to 8 bit, encodes as baseline JPEG and decodes again (libjpeg, through OpenCV).

    Source: ITU-T T.81 (1992); the quality scale is that of the Independent JPEG Group.
    """

    op: Literal["jpeg"] = "jpeg"
    quality: Annotated[Range, Bounds(ge=1, le=100, integer=True)]
    """Quality of libjpeg, 1..100."""
    subsampling: Literal[420, 422, 444] = 420
    """Chroma subsampling: 420 halves both axes, 422 the horizontal one, 444 none."""

    @staticmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Compresses each of `images` (N, 3, H, W); the noise seeds are not used."""
        sampling = _SAMPLING[int(number(params, "subsampling"))]
        quality = int(number(params, "quality"))
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]

        def compress(image: Image, _: int) -> Image:
            levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
            # OpenCV encodes BGR: without the swap, red and blue would get each other's share of the luma.
            _, code = cv2.imencode(".jpg", cv2.cvtColor(levels, cv2.COLOR_RGB2BGR), settings)
            decoded = cv2.cvtColor(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
            return np.asarray(decoded / np.float32(255), dtype=np.float32)

        return per_image(images, compress)
