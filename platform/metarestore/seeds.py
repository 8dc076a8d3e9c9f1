"""Named child seeds: all random numbers of the package come from here, never from global state."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_sequence(*path: int | str) -> np.random.SeedSequence:
    """Returns the seed sequence named by `path`; different paths give independent streams.

    Raises:
        ValueError: A number of the path is negative.
    """
    parts = tuple(part if isinstance(part, str) else _natural(part) for part in path)
    # One spawn key for the whole path: with one key per part, creating a generator takes twice as long. The repr of a
    # tuple distinguishes (1, "a") from ("1", "a"), and is the same in every process.
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return np.random.SeedSequence(entropy=0x6D657461, spawn_key=(int.from_bytes(digest, "little"),))


def _natural(part: int) -> int:
    """Converts a non-negative integer, which may be from NumPy, to a plain int."""
    if part < 0:
        raise ValueError(f"a seed must not be negative, got {part}")
    return int(part)


def generator(*path: int | str) -> np.random.Generator:
    """Returns a fresh generator for the stream named by `path`, e.g. `generator(seed, "images", index)`."""
    return np.random.Generator(np.random.Philox(seed_sequence(*path)))


def derived_seed(*path: int | str) -> int:
    """Returns a 63-bit integer seed named by `path`: plain data that can be logged and sent to a worker."""
    return int(seed_sequence(*path).generate_state(1, np.uint64)[0] >> np.uint64(1))
