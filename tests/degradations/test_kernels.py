"""Kernel shapes: they sum to 1, lie where they should, and have the moments of their formulas."""

import math

import numpy as np
import pytest
from scipy.special import gamma

from metarestore.degradations.kernels import (
    disc_kernel,
    gaussian_kernel,
    gaussian_line,
    generalised_kernel,
    mass_centre,
    motion_kernel,
    plateau_kernel,
    recentred,
    sinc_kernel,
)

SHAPES = {
    "round": lambda shift: np.outer(gaussian_line(1.3, shift), gaussian_line(1.3, shift)),
    "narrow": lambda shift: np.outer(gaussian_line(0.0, shift), gaussian_line(0.0, shift)),
    "cut": lambda shift: np.outer(gaussian_line(4.0, shift, 7), gaussian_line(4.0, shift, 7)),
    "elongated": lambda shift: gaussian_kernel(0.8, 3.0, 30.0, shift),
    "elongated, narrow": lambda shift: gaussian_kernel(0.0, 3.0, 30.0, shift),
    "elongated, cut": lambda shift: gaussian_kernel(3.0, 3.0, 30.0, shift, 11),
    "elongated across": lambda shift: gaussian_kernel(2.0, 0.2, 30.0, shift),
    "generalised, peaked": lambda shift: generalised_kernel(1.5, 1.5, 120.0, 0.5, 21, shift),
    "generalised, flat": lambda shift: generalised_kernel(3.0, 1.5, 60.0, 6.0, 21, shift),
    "generalised, narrow": lambda shift: generalised_kernel(0.0, 1.0, 0.0, 16.0, 3, shift),
    "plateau": lambda shift: plateau_kernel(1.5, 2.0, 45.0, 1.5, 21, shift),
    "plateau, narrow": lambda shift: plateau_kernel(0.0, 1.0, 0.0, 16.0, 21, shift),
    "motion": lambda shift: motion_kernel(9.3, 25.0, 0.0, shift),
    "motion, half round": lambda shift: motion_kernel(20.0, 70.0, 1.0, shift),
    "motion, full round": lambda shift: motion_kernel(20.0, 70.0, -2.0, shift),
    "no motion": lambda shift: motion_kernel(0.0, 70.0, 1.0, shift),
    "disc": lambda shift: disc_kernel(3.7, 1.0, shift),
    "sharp disc": lambda shift: disc_kernel(3.7, 0.0, shift),
    "soft disc": lambda shift: disc_kernel(2.0, 6.0, shift),
    "point": lambda shift: disc_kernel(0.0, 1.0, shift),
    "sharp point": lambda shift: disc_kernel(0.0, 0.0, shift),
    "sinc": lambda shift: sinc_kernel(1.2, 21, shift),
}


def covariance(kernel: np.ndarray) -> np.ndarray:
    """Returns the covariance of a kernel's mass in (x, y), y upwards, so that angles are counter-clockwise."""
    exact = kernel.astype(np.float64)
    row, column = mass_centre(kernel)
    x, y = np.meshgrid(np.arange(kernel.shape[1]) - column, row - np.arange(kernel.shape[0]))
    return np.array([[(exact * a * b).sum() for a in (x, y)] for b in (x, y)])


def turned(along: float, across: float, angle: float) -> np.ndarray:
    """Returns the covariance of a mass with two variances, the first in direction `angle`."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return turn @ np.diag([along, across]) @ turn.T


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
class TestEveryShape:
    def test_sums_to_one(self, shape, shift):
        kernel = shape(shift)
        assert kernel.dtype == np.float32
        assert kernel.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)

    def test_has_its_mass_centre_where_it_should(self, shape, shift):
        kernel = shape(shift)
        assert len(kernel) % 2 == (shift == 0)
        middle = (len(kernel) - 1) // 2
        assert mass_centre(kernel) == pytest.approx((middle + shift, middle + shift), abs=1e-3)


@pytest.mark.parametrize(
    "name", ["narrow", "elongated, narrow", "plateau, narrow", "no motion", "point", "sharp point"]
)
def test_nothing_is_a_single_pixel_or_a_block_of_four(name):
    kernel = SHAPES[name](0.0)
    assert kernel[len(kernel) // 2, len(kernel) // 2] == pytest.approx(1, abs=1e-6)
    block = SHAPES[name](0.5)
    middle = len(block) // 2
    assert block[middle - 1 : middle + 1, middle - 1 : middle + 1].sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 135.0])
def test_elongated_kernel_has_the_covariance_of_its_parameters(angle, shift):
    kernel = gaussian_kernel(1.5, 2.0, angle, shift)
    assert np.allclose(covariance(kernel), turned(9.0, 1.5**2, angle), atol=1e-3)


def test_a_ratio_below_one_is_longer_across():
    assert np.allclose(gaussian_kernel(3.0, 0.5, 20.0), gaussian_kernel(1.5, 2.0, 110.0), atol=1e-7)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_round_kernel_is_the_product_of_its_line(shift):
    line = gaussian_line(1.7, shift)
    assert np.abs(np.outer(line, line) - gaussian_kernel(1.7, 1.0, 40.0, shift)).max() < 1e-7


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_generalised_gaussian_of_beta_one_is_a_gaussian(shift):
    general = generalised_kernel(1.5, 2.0, 30.0, 1.0, 21, shift)
    assert np.abs(general - gaussian_kernel(1.5, 2.0, 30.0, shift, 21)).max() < 1e-7


@pytest.mark.parametrize(("beta", "sigma", "size"), [(0.5, 1.5, 101), (0.8, 1.5, 61), (2.0, 3.0, 31), (4.0, 5.0, 41)])
def test_generalised_gaussian_has_its_second_moment(beta, sigma, size):
    # The integral of r³ exp(−r^(2β) / 2) over that of r exp(−r^(2β) / 2), half of it on each axis.
    variance = 2 ** (1 / beta) * gamma(2 / beta) / gamma(1 / beta) / 2
    kernel = generalised_kernel(sigma, 1.5, 30.0, beta, size)
    expected = turned((1.5 * sigma) ** 2 * variance, sigma**2 * variance, 30.0)
    assert np.allclose(covariance(kernel), expected, rtol=0.02)


def test_plateau_has_its_second_moment():
    # The integral of r³ / (1 + r⁸) over that of r / (1 + r⁸), half of it on each axis.
    variance = 1 / (2 * math.cos(math.pi / 4)) / 2
    assert np.allclose(
        covariance(plateau_kernel(3.0, 1.0, 0.0, 4.0, 61)), turned(9 * variance, 9 * variance, 0), rtol=5e-3
    )


def test_plateau_is_half_as_high_one_width_from_its_centre():
    kernel = plateau_kernel(3.0, 1.0, 0.0, 2.5, 21)
    assert kernel[10, 13] == pytest.approx(kernel[10, 10] / 2)


@pytest.mark.parametrize("length", [2, 6, 11, 40])
def test_straight_motion_has_the_variance_of_a_box(length):
    kernel = motion_kernel(length, 0.0, 0.0)
    # Sharing a point by bilinear interpolation adds 1/6 of a pixel² where its place in the pixel is uniform.
    assert np.allclose(covariance(kernel), [[length**2 / 12 + 1 / 6, 0], [0, 0]], atol=1e-3)
    assert np.allclose(motion_kernel(length, 90.0, 0.0), kernel.T, atol=1e-6)


@pytest.mark.parametrize("angle", [20.0, 60.0, 135.0])
def test_straight_motion_goes_in_its_direction(angle):
    spread = covariance(motion_kernel(30.0, angle, 0.0))
    assert np.allclose(spread, turned(30.0**2 / 12, 0, angle), atol=0.2)


def test_half_a_circle_has_its_moments_and_opens_upwards():
    length = 40.0
    radius = length / math.pi
    kernel = motion_kernel(length, 0.0, 1.0)
    expected = np.diag([radius**2 / 2, radius**2 * (1 / 2 - 4 / math.pi**2)]) + np.eye(2) / 6
    assert np.allclose(covariance(kernel), expected, atol=0.05)
    # Turning left all the way, one goes down, right, and up: half-way is the lowest point.
    lowest = np.flatnonzero(kernel.sum(axis=1) > 1e-4).max()
    assert np.argmax(kernel[lowest]) == pytest.approx(len(kernel) // 2, abs=1)


def test_motion_turns_the_other_way_with_negative_curvature():
    assert np.allclose(motion_kernel(17.0, 0.0, -0.7), motion_kernel(17.0, 0.0, 0.7)[::-1], atol=1e-6)


def test_slight_curvature_is_almost_straight():
    straight, curved = motion_kernel(15.0, 33.0, 0.0), motion_kernel(15.0, 33.0, 1e-9)
    assert np.abs(straight - curved).max() < 1e-6


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("edge", [1.0, 3.0])
@pytest.mark.parametrize("radius", [2.3, 4.0, 6.5])
def test_disc_has_the_second_moment_of_its_radius(radius, edge, shift):
    # A sharp disc has variance r²/4 along an axis; an edge of width w is a mean over the radii r ± w/2.
    expected = (radius**4 + (radius * edge) ** 2 / 2 + edge**4 / 80) / (radius**2 + edge**2 / 12) / 4
    assert np.allclose(covariance(disc_kernel(radius, edge, shift)), expected * np.eye(2), rtol=0.03, atol=1e-3)


def response(kernel: np.ndarray, frequency: float) -> float:
    """Returns how much of a horizontal wave passes; `frequency` in radians per pixel."""
    return float((kernel.sum(axis=0) * np.cos(frequency * (np.arange(len(kernel)) - len(kernel) // 2))).sum())


@pytest.mark.parametrize("cutoff", [0.6, 1.2, 2.2])
def test_sinc_passes_below_the_cutoff_and_stops_above_it(cutoff):
    kernel = sinc_kernel(cutoff, 101)
    assert all(response(kernel, share * cutoff) == pytest.approx(1, abs=0.05) for share in (0.2, 0.5, 0.8))
    stopped = [share * cutoff for share in (1.3, 1.6) if share * cutoff < math.pi]
    assert all(response(kernel, frequency) == pytest.approx(0, abs=0.05) for frequency in stopped)
    assert kernel.min() < 0


def lopsided(height: int, width: int) -> np.ndarray:
    """Returns a smooth kernel whose mass centre is off the middle by no whole number."""
    y, x = np.mgrid[:height, :width]
    weights = np.exp(-0.5 * (((y - height / 2 - 0.8) / 1.3) ** 2 + ((x - width / 2 + 1.3) / 1.6) ** 2))
    return (weights / weights.sum()).astype(np.float32)


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("size", [(15, 15), (16, 16), (15, 18)])
def test_recentred_kernel_has_its_mass_centre_in_its_middle(size, shift):
    kernel = lopsided(*size)
    moved = recentred(kernel, shift)
    assert moved.shape[0] == moved.shape[1]
    assert len(moved) % 2 == (shift == 0)
    assert mass_centre(moved) == pytest.approx(((len(moved) - 1) / 2,) * 2, abs=1e-3)
    assert np.allclose(covariance(moved), covariance(kernel), atol=2e-3)
    assert moved.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_recentring_by_whole_pixels_changes_no_weight():
    kernel = gaussian_kernel(1.0, 1.5, 30.0)
    aside = np.pad(kernel, ((0, 5), (3, 0)))
    moved = recentred(aside)
    rim = (len(kernel) - len(moved)) // 2
    assert np.abs(np.pad(moved, max(0, rim)) - np.pad(kernel, max(0, -rim))).max() < 1e-5


def test_recentring_keeps_a_sharp_pixel_sharp_and_even_kernels_even():
    assert np.abs(recentred(np.pad(np.ones((1, 1), np.float32), ((2, 1), (0, 6)))) - 1).max() == 0
    square = np.full((2, 2), 0.25, np.float32)
    assert np.array_equal(recentred(np.pad(square, ((2, 1), (0, 6))), 0.5), square)
