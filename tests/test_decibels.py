"""PSNR is finite for every error, and orders restorations by their error."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from metarestore.decibels import CAP, FLOOR, decibels


@pytest.mark.parametrize("peak", [1.0, 255.0])
@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, CAP),
        (1e-300, CAP),
        (1e-10, CAP),
        (1e-3, 30.0),
        (1.0, FLOOR),
        (7.0, FLOOR),
        (np.inf, FLOOR),
        (np.nan, FLOOR),
    ],
)
def test_every_error_has_a_finite_psnr(peak: float, share: float, expected: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decibels(share * peak**2, peak) == pytest.approx(expected, abs=1e-9)


def test_a_smaller_error_never_ranks_lower_and_none_ranks_first() -> None:
    found = decibels(np.concatenate([[0.0], np.geomspace(1e-12, 10, 200), [np.nan]]))
    assert (np.diff(found) <= 0).all()
    assert (found[0], found[-1]) == (CAP, FLOOR)
    assert (found <= CAP).all()
