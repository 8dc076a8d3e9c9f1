"""Sketches of gradients: a fixed random projection that preserves inner products, in bytes instead of megabytes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metarestore.seeds import generator

Floats = NDArray[np.float64]

SEED = 0
"""Seed of the projection, the same in all runs, so that their sketches can be compared."""


def sketched(gradients: ArrayLike, size: int, seed: int = SEED) -> NDArray[np.float32]:
    """Projects vectors (..., P) to signed count-sketches (..., m): each coordinate is added, with a sign, to one entry.

    The inner product of two sketches is an unbiased estimate of that of the vectors, with variance
    (‖x‖²‖y‖² + ⟨x, y⟩² − 2 Σᵢ xᵢ²yᵢ²) / m. The map is linear, so a mean of sketches is the sketch of the mean.

    Args:
        gradients: Vectors (..., P).
        size: m.
        seed: Seed of the projection; sketches of different seeds, sizes or P cannot be compared.

    Source: Charikar, Chen, Farach-Colton, Finding frequent items in data streams (2002); Weinberger et al., Feature
    Hashing for Large Scale Multitask Learning (2009), lemma 2.
    """
    vectors = np.asarray(gradients)
    entries, signs = _projection(vectors.shape[-1], size, seed)
    rows = vectors.reshape(-1, vectors.shape[-1])
    # bincount adds in the order of the coordinates and in double precision: the same bits on every machine.
    sketches = [np.bincount(entries, weights=row * signs, minlength=size) for row in rows]
    return np.asarray(sketches, np.float32).reshape(*vectors.shape[:-1], size)


@lru_cache(maxsize=4)
def _projection(length: int, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rng = generator("sketch", seed, length, size)
    return rng.integers(0, size, length), rng.choice(np.asarray([-1.0, 1.0], np.float32), length)


def cosines(vectors: ArrayLike) -> Floats:
    """Returns the cosines (T, T) between vectors (T, m), gradients or their sketches; 0 where a vector is 0."""
    rows = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return np.asarray(unit @ unit.T)


def mean_cosine(vectors: ArrayLike) -> float:
    """Returns the mean cosine between different vectors of (T, m), the agreement of tasks; 1 for a single vector."""
    matrix = cosines(vectors)
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1))) if count > 1 else 1.0


def cosine_error(cosine: ArrayLike, size: int) -> Floats:
    """Returns the standard error (1 − c²)/√m of a cosine c between sketches.

    It is valid for vectors without a dominating coordinate and large m: the entries of a sketch are then approximately
    normal, and the cosine is the correlation of m pairs of them.
    """
    return np.asarray((1.0 - np.square(np.asarray(cosine, np.float64))) / np.sqrt(size))
