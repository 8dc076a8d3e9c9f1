"""Keeps the features of a frozen teacher, for tasks that repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

Features = Mapping[str, Tensor]


@dataclass(frozen=True)
class FeatureCache:
    """Features by the content of the images that they were computed from, in the memory of this process.

    The features of a whole shard are kept together, so that they are bit for bit those that would be computed. When the
    limit is reached, nothing more is kept: tasks repeat in the same order, so a cache that forgets its oldest entries
    would forget each one before it is needed again.

    Attributes:
        limit: Maximum size in bytes.
    """

    limit: int
    _kept: dict[bytes, Features] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return sum(map(_bytes, self._kept.values()))

    def get(self, images: tuple[Tensor, ...], compute: Callable[[], Features]) -> Features:
        """Returns the features of images, computed if they are not kept.

        Args:
            images: What the features depend on.
            compute: Computes them.
        """
        if not self.limit:
            return compute()
        key = _digest(images)
        features = self._kept.get(key)
        if features is None:
            features = compute()
            if self.size + _bytes(features) <= self.limit:
                self._kept[key] = features
        return features


def _bytes(features: Features) -> int:
    return sum(value.element_size() * value.nelement() for value in features.values())


def _digest(images: tuple[Tensor, ...]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for image in images:
        digest.update(repr(tuple(image.shape)).encode())
        digest.update(np.ascontiguousarray(image.detach().cpu().numpy()).tobytes())
    return digest.digest()
