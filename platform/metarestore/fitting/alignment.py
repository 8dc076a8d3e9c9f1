"""Sub-pixel registration of HR and LR."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from scipy import ndimage

from metarestore.degradations import bicubic_downsample
from metarestore.fitting.equations import aligned_pixels
from metarestore.fitting.pairs import Floats, Pair

_STEPS = 8
_SMOOTH = 1.0
"""Standard deviation of the blur that is applied to both images, in LR pixels."""
_EDGE = 4


def bicubic_lr(pair: Pair) -> Floats:
    """Returns the HR image of a pair, downsampled as by MATLAB (h, w, 3), in grey levels, not clipped."""
    images = torch.from_numpy(np.ascontiguousarray(pair.hr.transpose(2, 0, 1)))[None]
    return np.asarray(bicubic_downsample(images, pair.scale)[0].numpy().transpose(1, 2, 0), dtype=np.float64)


def shift_between(pair: Pair) -> tuple[float, float]:
    """Estimates the shift of the content of LR pixels in HR, relative to the centre-aligned position.

    Iterated least squares on the gradients of the mean of the channels, with a gain and an offset. It does not model
    the blur; the centre of mass of a fitted kernel should agree with it.

    Returns:
        (down, right) in HR pixels.

    Source: Lucas and Kanade, An Iterative Image Registration Technique with an Application to Stereo Vision (1981).
    """
    target = _smooth(pair.lr.mean(axis=-1))
    source = _smooth(bicubic_lr(pair).mean(axis=-1))
    inside = (slice(_EDGE, -_EDGE), slice(_EDGE, -_EDGE))
    aligned = aligned_pixels(pair)[inside]
    shift = np.zeros(2)
    for _ in range(_STEPS):
        moved = _moved(source, shift)
        down, right = (np.asarray(gradient) for gradient in np.gradient(moved))
        terms = np.stack([moved[inside], down[inside], right[inside], np.ones_like(moved[inside])], axis=-1)
        solution: Floats = np.linalg.lstsq(terms[aligned], target[inside][aligned], rcond=None)[0]
        step = solution[1:3] / solution[0]
        shift += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-4:
            break
    return float(shift[0] * pair.scale), float(shift[1] * pair.scale)


def _smooth(image: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), _SMOOTH, borderType=cv2.BORDER_REFLECT), dtype=np.float64)


def _moved(image: Floats, shift: Floats) -> Floats:
    """Returns the image whose value at p is that of `image` at p + shift (down, right)."""
    return np.asarray(ndimage.shift(image, -shift, order=3, mode="reflect"), dtype=np.float64)
