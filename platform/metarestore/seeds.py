"""Named child seeds: every random number of the package comes from here, none from global state."""

from __future__ import annotations

import hashlib

import numpy as np


def _word(part: int | str) -> int:
    """Maps one part of a seed's name to a non-negative integer that is the same in every process."""
    if isinstance(part, str):
        return int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")
    if part < 0:
        raise ValueError(f"a seed must not be negative, got {part}")
    return part


def seed_sequence(*path: int | str) -> np.random.SeedSequence:
    """Returns the seed sequence named by `path`; different paths give independent streams."""
    # Numbers and names are told apart by the parity of a prefix word, so that (1, "a") and ("1", "a") differ.
    words: list[int] = []
    for part in path:
        words += [int(isinstance(part, str)), _word(part)]
    return np.random.SeedSequence(entropy=0x6D657461, spawn_key=tuple(words))


def generator(*path: int | str) -> np.random.Generator:
    """Returns a fresh generator for the stream named by `path`, e.g. `generator(seed, "images", index)`."""
    return np.random.Generator(np.random.Philox(seed_sequence(*path)))


def derived_seed(*path: int | str) -> int:
    """Returns a 63-bit integer seed named by `path`: plain data that can be logged and sent to a worker."""
    return int(seed_sequence(*path).generate_state(1, np.uint64)[0] >> np.uint64(1))
