"""Alignment against known displacements, not against the estimator itself; moved objects; pairs that are refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from metarestore.registration.align import AlignedPair, align_pair, covered
from metarestore.registration.compare import blurred, reduced
from metarestore.registration.exposure import match_exposure
from metarestore.registration.motion import Motion, has_data, warped
from metarestore.registration.register import NotRegisteredError
from metarestore.tasks.embedded import embedded_path
from metarestore.tasks.photographs import read_image

SCALE = 4
EDGE = 8
"""LR pixels that are cut off on each side, where the warped scene has no data."""


def scene(name: str, side: int = 384) -> np.ndarray:
    return read_image(embedded_path(name)).pixels[:side, :side].astype(np.float32)


def photographed(image: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns LR by a wide blur, with noise."""
    lr = reduced(blurred(image, 2.5), SCALE)
    return lr + np.random.default_rng(seed).normal(0, 1.5, lr.shape).astype(np.float32)


def known_motion(angle: float, zoom: float, shift: tuple[float, float], side: int) -> Motion:
    turn = zoom * np.array([[c := np.cos(np.deg2rad(angle)), -(s := np.sin(np.deg2rad(angle)))], [s, c]])
    centre = np.full(2, side / 2)
    return Motion(np.column_stack([turn, centre - turn @ centre + shift]))


def pair(name: str, motion: Motion, *, gains: tuple[float, ...] = (1, 1, 1)) -> tuple[np.ndarray, np.ndarray, Motion]:
    """Returns LR of a scene, HR in which LR pixels lie as `motion` says, and the motion between the two."""
    image = scene(name)
    inverse = np.linalg.inv(np.vstack([motion.matrix, [0, 0, 1]]))[:2]
    lr, hr = photographed(image) * np.array(gains, np.float32), warped(image, Motion(inverse), SCALE)
    lr, hr = lr[EDGE:-EDGE, EDGE:-EDGE], hr[SCALE * EDGE : -SCALE * EDGE, SCALE * EDGE : -SCALE * EDGE]
    matrix = motion.matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ np.full(2, EDGE) - EDGE
    return to_bytes(lr), to_bytes(hr), Motion(matrix)


def to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def errors(aligned: AlignedPair, truth: Motion, lr: np.ndarray) -> np.ndarray:
    """Returns the distance in LR pixels of each LR pixel from where it should be."""
    size = lr.shape[:2]
    return np.linalg.norm(aligned.motion.displacements(*size) - truth.displacements(*size), axis=-1)


@pytest.mark.parametrize("name", ["astronaut", "motorcycle_left"])
@pytest.mark.parametrize(
    ("angle", "zoom", "shift"), [(0, 1, (0.4, -0.3)), (1, 1, (0, 0)), (0, 1.01, (1.5, 0.5)), (-0.7, 0.99, (-2.3, 1.8))]
)
def test_the_residual_is_below_a_tenth_of_a_pixel(
    name: str, angle: float, zoom: float, shift: tuple[float, float]
) -> None:
    lr, hr, truth = pair(name, known_motion(angle, zoom, shift, 96), gains=(1.1, 1.0, 0.88))
    error = errors(align_pair(lr, hr, SCALE), truth, lr)
    assert np.sqrt(np.mean(error**2)) < 0.1
    assert np.median(error) < 0.06


@pytest.mark.parametrize("name", ["astronaut", "camera", "chelsea", "motorcycle_left"])
def test_an_aligned_pair_hardly_changes(name: str) -> None:
    image = scene(name, 288)
    lr, hr = to_bytes(photographed(image)), to_bytes(image)
    aligned = align_pair(lr, hr, SCALE)
    assert errors(aligned, Motion.identity(), lr).max() < 0.05
    assert aligned.masked < 0.01
    assert np.abs(np.array(aligned.exposure.gains) - 1).max() < 0.03


def test_lr_keeps_its_pixels_and_all_sizes_match() -> None:
    lr, hr, truth = pair("astronaut", known_motion(0.5, 1.0, (2.0, -1.0), 96))
    aligned = align_pair(lr, hr, SCALE)
    rows, columns = covered(has_data(aligned.motion, *lr.shape[:2], SCALE))
    assert np.array_equal(aligned.lr, lr[rows, columns])
    assert aligned.hr.shape[:2] == aligned.mask.shape == tuple(SCALE * side for side in aligned.lr.shape[:2])
    assert has_data(truth, *lr.shape[:2], SCALE)[rows, columns].mean() > 0.99
    assert aligned.lr.shape[0] >= lr.shape[0] - 8


def test_a_smooth_distortion_is_corrected() -> None:
    image = scene("motorcycle_left")
    side = image.shape[0] // SCALE
    wave = np.sin(2 * np.pi * np.arange(side) / 90)
    bent = Motion(np.eye(2, 3), np.stack([0.6 * wave[:, None] + 0 * wave, 0.6 * wave + 0 * wave[:, None]], axis=-1))
    # Displacing back is the inverse up to second order of a displacement that changes slowly.
    hr = warped(image, Motion(np.eye(2, 3), -bent.field), SCALE)  # type: ignore[operator]
    cut, tall = slice(EDGE, -EDGE), slice(SCALE * EDGE, -SCALE * EDGE)
    lr = to_bytes(photographed(image)[cut, cut])
    aligned = align_pair(lr, to_bytes(hr[tall, tall]), SCALE)
    truth = Motion(np.eye(2, 3), bent.field[cut, cut])  # type: ignore[index]
    before = np.linalg.norm(truth.displacements(*lr.shape[:2]), axis=-1)
    after = errors(aligned, truth, lr)
    assert np.median(before) > 0.4
    assert np.median(after) < 0.12


@pytest.mark.parametrize("name", ["astronaut", "camera", "motorcycle_left"])
def test_the_mask_covers_a_moved_object_and_little_else(name: str) -> None:
    lr, hr, truth = pair(name, known_motion(0.4, 1.0, (0.7, -0.6), 96))
    moved = np.zeros(lr.shape[:2], bool)
    moved[24:40, 30:44] = True
    lr[moved] = to_bytes(0.5 * np.roll(lr, 30, axis=1)[moved] + np.array([60, 20, 90]))
    aligned = align_pair(lr, hr, SCALE)
    rows, columns = covered(has_data(aligned.motion, *lr.shape[:2], SCALE))
    masked, wanted = ~aligned.mask[::SCALE, ::SCALE], moved[rows, columns]
    near = cv2.dilate(wanted.astype(np.uint8), np.ones((11, 11), np.uint8)) > 0
    assert masked[wanted].mean() > 0.95
    assert masked[~near].mean() < 0.01
    assert np.median(errors(aligned, truth, lr)) < 0.1


@pytest.mark.parametrize(("first", "second"), [("astronaut", "chelsea"), ("motorcycle_left", "camera")])
def test_different_scenes_are_refused(first: str, second: str) -> None:
    image, other = scene(first, 288), scene(second, 288)
    with pytest.raises(NotRegisteredError):
        align_pair(to_bytes(photographed(image)), to_bytes(other), SCALE)


def test_a_turn_by_five_degrees_is_refused() -> None:
    lr, hr, _ = pair("motorcycle_left", known_motion(5, 1.0, (0, 0), 96))
    with pytest.raises(NotRegisteredError, match=r"rotated by 5\.0 degrees"):
        align_pair(lr, hr, SCALE)


def test_the_exposure_is_that_of_lr() -> None:
    image = scene("astronaut", 288)
    lr = 0.8 * photographed(image) * np.float32([1.1, 1, 0.9]) + 12
    exposure = match_exposure(lr.astype(np.float32), reduced(image, SCALE))
    assert exposure.gains == pytest.approx((0.88, 0.8, 0.72), abs=0.02)
    assert exposure.offsets == pytest.approx((12, 12, 12), abs=2)


def test_flat_pictures_are_refused() -> None:
    with pytest.raises(NotRegisteredError):
        align_pair(np.full((48, 48, 3), 90, np.uint8), np.full((192, 192, 3), 90, np.uint8), SCALE)
