"""Colour metrics against direct computations, and what they are blind to."""

from __future__ import annotations

import numpy as np
import pytest

from metarestore.decibels import CAP, decibels
from metarestore.evaluation.colour import COLOUR_SHIFT, colour_metrics, colour_shifts, exact_restorations
from metarestore.evaluation.metrics import PEAK


def crops(seed: int, count: int = 3, side: int = 12) -> np.ndarray:
    """RGB crops (N, 3, h, w) in whole grey levels."""
    return np.random.default_rng(seed).integers(40, 200, (count, 3, side, side)).astype(np.float64)


def measured(rgb: np.ndarray, hr: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    return vars(colour_metrics(rgb, hr, rgb.mean(axis=1), hr.mean(axis=1), names))


def test_metrics_are_those_of_the_whole_photograph() -> None:
    """Two crops of one photograph count as one image of twice the size."""
    rgb, hr = crops(0), crops(1)
    found = measured(rgb, hr, ["a", "b", "a"])
    for k, own in enumerate(([0, 2], [1])):
        x, y = rgb[own], hr[own]
        assert found["psnr_rgb"][k] == pytest.approx(decibels(np.mean((x - y) ** 2), PEAK))
        means = np.abs(x.mean(axis=(0, 2, 3)) - y.mean(axis=(0, 2, 3)))
        assert found["colour_error"][k] == pytest.approx(means.mean())
        luma, truth = x.mean(axis=1).ravel(), y.mean(axis=1).ravel()
        line = np.polyfit(luma, truth, 1)
        error = np.mean((np.polyval(line, luma) - truth) ** 2)
        assert found["psnr_y_matched"][k] == pytest.approx(decibels(error, PEAK))


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 12.0), (0.8, 0.0), (1.3, -25.0), (-1.0, 255.0)])
def test_a_straight_line_of_luma_is_no_error_after_the_match(gain: float, offset: float) -> None:
    hr = crops(2)
    found = measured(gain * hr + offset, hr, list("abc"))
    np.testing.assert_allclose(found["psnr_y_matched"], CAP)
    assert (found["psnr_rgb"] < 40).all()


def test_the_match_never_costs_anything() -> None:
    rgb, hr = crops(3), crops(4)
    plain = decibels(np.mean((rgb.mean(axis=1) - hr.mean(axis=1)) ** 2, axis=(1, 2)), PEAK)
    assert (measured(rgb, hr, list("abc"))["psnr_y_matched"] >= plain - 1e-9).all()


@pytest.mark.parametrize("level", [0.0, 128.0, 255.0])
def test_flat_restorations_have_finite_metrics(level: float) -> None:
    flat = np.full((3, 3, 12, 12), level)
    for rgb, hr in ((flat, crops(5)), (crops(5), flat), (flat, flat)):
        assert all(np.isfinite(values).all() for values in measured(rgb, hr, list("abc")).values())
    np.testing.assert_array_equal(measured(flat, flat, list("abc"))["psnr_rgb"], CAP)


def test_pixels_that_are_not_numbers_are_the_largest_error() -> None:
    rgb, hr = crops(6), crops(7)
    rgb[1, 0, 3, 3] = np.nan
    found = measured(rgb, hr, list("abc"))
    assert (found["psnr_rgb"][1], found["colour_error"][1], found["psnr_y_matched"][1]) == (0, PEAK, 0)
    assert all(np.isfinite(values).all() for values in found.values())


@pytest.mark.parametrize("shift", [(COLOUR_SHIFT + 1,) * 3, (0.0, 0.0, 3 * COLOUR_SHIFT + 1), (-9.0, 9.0, -9.0)])
def test_a_shift_is_named_with_arm_and_photograph(shift: tuple[float, float, float]) -> None:
    hr = crops(8)
    rgb = hr.copy()
    rgb[1] += np.asarray(shift)[:, None, None]
    errors = measured(rgb, hr, ["sea", "hill", "town"])["colour_error"].tolist()
    text = colour_shifts("maml", ["sea", "hill", "town"], errors, None)
    assert text is not None
    assert text.startswith("maml shifts the colour")
    assert "hill" in text
    assert "sea" not in text
    assert "1 of 3 photographs" in text


def test_what_bicubic_upscaling_is_off_by_is_no_shift() -> None:
    assert colour_shifts("m", ["sea"], [COLOUR_SHIFT + 3], [4.0]) is None
    assert colour_shifts("m", ["sea"], [COLOUR_SHIFT + 4.1], [4.0]) is not None


def test_exact_restorations_are_named_by_arm() -> None:
    assert exact_restorations({"bicubic": [], "m": []}) is None
    text = exact_restorations({"bicubic": ["sky", "page"], "m": [], "n": ["sky"]})
    assert text is not None
    assert text.endswith("bicubic: sky, page; n: sky")
    assert "100 dB" in text
