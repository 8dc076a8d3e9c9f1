"""Named seeds: equal names give equal streams, different names independent ones."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from metarestore.seeds import derived_seed, generator

PATHS: list[tuple[int | str, ...]] = [(1, "a"), ("1", "a"), ("a", 1), (1,), (1, 0), (0, 1), ("1, 'a'",), (10,), ()]


def test_equal_names_give_equal_streams_whatever_kind_of_integer() -> None:
    assert np.array_equal(generator(3, "x").random(9), generator(np.int64(3), "x").random(9))


def test_different_names_give_independent_streams() -> None:
    streams = [generator(*path).standard_normal(4000) for path in PATHS]
    for first, second in itertools.combinations(streams, 2):
        assert abs(np.mean(first * second)) < 4 / 4000**0.5
    assert len({derived_seed(*path) for path in PATHS}) == len(PATHS)


def test_neighbouring_numbers_are_independent() -> None:
    first = np.array([generator(0, k).random() for k in range(4000)])
    assert abs(first.mean() - 0.5) < 4 / (12 * 4000) ** 0.5
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 4 / 4000**0.5


def test_another_process_has_the_same_seeds() -> None:
    code = "from metarestore.seeds import derived_seed; print(derived_seed(5, 'images', 'ä'))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(shown) == derived_seed(5, "images", "ä")


def test_a_derived_seed_fits_into_63_bits() -> None:
    assert all(0 <= derived_seed(k) < 2**63 for k in range(200))


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        generator(-1)
