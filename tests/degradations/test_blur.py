"""Filtering against SciPy in float64, and what the blur operations draw."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage, signal

from metarestore.config.ranges import PerScale, Uniform
from metarestore.degradations import OPERATIONS, Context, Pipeline
from metarestore.degradations.blur import KernelBlur
from metarestore.degradations.filtering import filter_batch, filter_image, prepare
from metarestore.seeds import generator

BLURS = {op: operation for op, operation in OPERATIONS.items() if issubclass(operation, KernelBlur)}
DRAWN = {
    "round": ("gaussian_blur", {"sigma": 1.3, "ratio": 1.0, "angle": 0.0}),
    "round, wide": ("gaussian_blur", {"sigma": 4.0, "ratio": 1.0, "angle": 0.0}),
    "round, cut": ("gaussian_blur", {"sigma": 4.0, "ratio": 1.0, "angle": 0.0, "size": 15}),
    "elongated": ("gaussian_blur", {"sigma": 1.0, "ratio": 3.0, "angle": 30.0}),
    "elongated along a row": ("gaussian_blur", {"sigma": 1.0, "ratio": 3.0, "angle": 0.0}),
    "elongated, wide": ("gaussian_blur", {"sigma": 3.0, "ratio": 2.0, "angle": 120.0}),
    "two widths": ("gaussian_blur", {"sigma": 0.3, "across": 2.0, "angle": 45.0}),
    "peaked": ("generalised_blur", {"sigma": 1.5, "ratio": 2.0, "angle": 70.0, "beta": 0.5, "size": 21}),
    "flat": ("generalised_blur", {"sigma": 2.0, "across": 3.0, "angle": 70.0, "beta": 4.0, "size": 21}),
    "plateau": ("plateau_blur", {"sigma": 1.0, "ratio": 2.0, "angle": 10.0, "beta": 1.2, "size": 21}),
    "motion": ("motion_blur", {"length": 14.5, "angle": 35.0, "curvature": 0.0}),
    "curved motion": ("motion_blur", {"length": 30.0, "angle": 80.0, "curvature": 0.8}),
    "disc": ("defocus_blur", {"radius": 3.0, "edge": 1.0}),
    "wide disc": ("defocus_blur", {"radius": 9.5, "edge": 2.0}),
    "sinc": ("sinc_blur", {"cutoff": 1.4, "size": 21}),
}
SIZES = [(40, 51), (7, 9), (1, 2)]


def apply(op: str, images: np.ndarray, backend: str = "opencv", **params: object) -> torch.Tensor:
    """As the fixture of this name, which keeps the key `size` for itself."""
    return BLURS[op].apply(torch.as_tensor(images), params, Context([0] * len(images), images.shape[-2:], backend))


def reference(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Returns Σ_d k[d] · in[p + d] of (N, C, H, W) in float64, where the kernel's pixel (K − 1) // 2 is d = 0."""
    kernel = np.outer(kernel, kernel) if kernel.ndim == 1 else kernel
    # SciPy's own border is wrong on images of one or two pixels, so that it is laid by NumPy.
    border = [(0, 0), (0, 0), *(((length - 1) // 2, length // 2) for length in kernel.shape)]
    padded = np.pad(images.astype(np.float64), border, mode="symmetric")
    return signal.correlate(padded, kernel.astype(np.float64)[None, None], mode="valid", method="direct")


def dense(height: int, width: int) -> np.ndarray:
    kernel = np.random.default_rng(3).random((height, width)) - 0.1
    return (kernel / kernel.sum()).astype(np.float32)


def sparse(height: int, width: int) -> np.ndarray:
    kernel = np.zeros((height, width), np.float32)
    kernel[np.random.default_rng(4).permutation(height)[:9], np.random.default_rng(5).permutation(width)[:9]] = 1 / 9
    return kernel


def aside(height: int, width: int) -> np.ndarray:
    kernel = np.zeros((height, width), np.float32)
    kernel[-2:, -3:] = dense(2, 3)
    return kernel


KERNELS = {
    "one pixel": np.ones((1, 1), np.float32),
    "line": dense(1, 9),
    "product": np.outer(dense(1, 9), dense(1, 12)).astype(np.float32),
    "line along both": dense(1, 8)[0],
    "small": dense(3, 3),
    "even": dense(8, 6),
    "long": dense(3, 47),
    "many taps": dense(19, 24),
    "few taps": sparse(27, 30),
    "no centre": aside(21, 14),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_filtering_equals_scipy(kernel, size, noise_image):
    images = noise_image(*size)
    expected = reference(images, kernel)
    ready = prepare(kernel)
    filtered = filter_image(images[0].transpose(1, 2, 0).copy(), ready)
    assert filtered.dtype == np.float32
    assert np.abs(filtered.transpose(2, 0, 1) - expected[0]).max() <= 1e-5
    assert np.abs(filter_batch(torch.from_numpy(images), ready).numpy() - expected).max() <= 1e-5


def test_the_kernels_above_go_every_way():
    lines = {name for name, kernel in KERNELS.items() if prepare(kernel).lines}
    assert lines == {"one pixel", "line", "product", "line along both"}
    taps = [np.count_nonzero(prepare(KERNELS[name]).kernel) for name in ("small", "few taps", "many taps")]
    assert taps[0] <= taps[1] < 150 < taps[2]


def test_what_cannot_be_seen_is_left_out():
    kernel = np.full((31, 31), 2e-10, np.float32)
    kernel[14:17, 13:18] = dense(3, 5)
    assert prepare(kernel).kernel.shape == (3, 5)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_filtered_bits_depend_on_nothing_else(kernel, noise_image):
    image = noise_image(150, 131)[0].transpose(1, 2, 0).copy()
    ready = prepare(kernel)
    first = filter_image(image, ready)
    before = cv2.getNumThreads()
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            assert np.array_equal(filter_image(image, ready), first)
            assert np.array_equal(filter_image(np.asfortranarray(image), prepare(kernel.copy())), first)
    finally:
        cv2.setNumThreads(before)


def test_a_point_becomes_the_kernel_turned_by_half():
    kernel = BLURS["motion_blur"].kernel({"length": 12.0, "angle": 20.0, "curvature": 1.0, "shift": 0.0})
    image = np.zeros((41, 41, 3), np.float32)
    image[20, 20] = 1
    spread = filter_image(image, prepare(kernel))[..., 0]
    middle, radius = 20, len(kernel) // 2
    shown = spread[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]
    assert np.abs(shown - kernel[::-1, ::-1]).max() < 1e-6
    assert np.abs(shown - kernel).max() > 0.01


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_gradients_of_the_torch_backend_sum_to_one_per_pixel(kernel):
    images = torch.rand(2, 3, 12, 14, requires_grad=True)
    filter_batch(images, prepare(kernel)).sum().backward()
    assert images.grad.sum().item() == pytest.approx(images.numel(), rel=1e-5)


@pytest.mark.parametrize("backend", ["opencv", "torch"])
@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("op", "params"), DRAWN.values(), ids=DRAWN)
def test_blur_equals_scipy(op, params, size, shift, backend, noise_image):
    images = noise_image(*size)
    expected = reference(images, BLURS[op].kernel({**params, "shift": shift}))
    assert np.abs(apply(op, images, backend=backend, **params, shift=shift).numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("sigma", [0.4, 1.3, 4.0])
@pytest.mark.parametrize("size", SIZES)
def test_gaussian_blur_equals_scipys_own(sigma, size, noise_image):
    image = noise_image(*size)
    expected = ndimage.gaussian_filter(image.astype(np.float64), (0, 0, sigma, sigma), mode="reflect", truncate=8)
    blurred = apply("gaussian_blur", image, sigma=sigma, ratio=1.0, angle=0.0, shift=0.0).numpy()
    assert np.abs(blurred - expected).max() <= 1e-5


@pytest.mark.parametrize(("angle", "sigmas"), [(0.0, (1.0, 2.5)), (90.0, (2.5, 1.0)), (180.0, (1.0, 2.5))])
def test_elongated_blur_equals_scipys_own_along_the_axes(angle, sigmas, noise_image):
    image = noise_image(40, 51)
    expected = ndimage.gaussian_filter(image.astype(np.float64), (0, 0, *sigmas), mode="reflect", truncate=8)
    blurred = apply("gaussian_blur", image, sigma=1.0, ratio=2.5, angle=angle, shift=0.0).numpy()
    assert np.abs(blurred - expected).max() <= 1e-5
    two_widths = apply("gaussian_blur", image, sigma=2.5, across=1.0, angle=angle, shift=0.0).numpy()
    assert np.abs(two_widths - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("op", "params"),
    [
        ("gaussian_blur", {"sigma": 0.0, "ratio": 1.0, "angle": 0.0}),
        ("gaussian_blur", {"sigma": 0.0, "ratio": 3.0, "angle": 20.0}),
        ("gaussian_blur", {"sigma": 0.0, "across": 0.0, "angle": 20.0}),
        ("generalised_blur", {"sigma": 0.0, "ratio": 1.0, "angle": 0.0, "beta": 0.5, "size": 21}),
        ("motion_blur", {"length": 0.0, "angle": 30.0, "curvature": 1.0}),
        ("defocus_blur", {"radius": 0.0, "edge": 1.0}),
    ],
)
def test_zero_strength_changes_nothing(op, params, noise_image):
    image = noise_image(20, 24)
    assert np.abs(apply(op, image, **params, shift=0.0).numpy() - image).max() < 1e-6


@pytest.mark.parametrize("backend", ["opencv", "torch"])
@pytest.mark.parametrize(("op", "params"), DRAWN.values(), ids=DRAWN)
def test_flat_image_has_no_rim(op, params, backend):
    flat = np.full((1, 3, 12, 20), 0.7, np.float32)
    assert (apply(op, flat, backend=backend, **params, shift=0.5) - 0.7).abs().max() < 2e-6


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize(("op", "params"), DRAWN.values(), ids=DRAWN)
def test_a_slope_is_seen_from_where_the_centre_lies(op, params, shift):
    y, x = np.mgrid[:96, :96].astype(np.float32) / 255
    slopes = np.stack([y, x, x - y])[None]
    moved = (apply(op, slopes, **params, shift=shift).numpy() - slopes)[0, :, 40:-40, 40:-40] * 255
    assert np.abs(moved - np.array([shift, shift, 0])[:, None, None]).max() < 2e-3


def entry(op: str, **keys: object) -> KernelBlur:
    (operation,) = Pipeline.model_validate([{"op": op, **keys}]).operations
    return operation


@pytest.mark.parametrize(("centre", "shifts"), [("pixel", [0, 0, 0, 0]), ("block", [0, 0.5, 0, 0.5])])
def test_block_moves_the_centre_at_even_scales(centre, shifts):
    blur = entry("gaussian_blur", sigma=1, centre=centre)
    assert [blur.draw(generator("x"), scale)["shift"] for scale in (1, 2, 3, 4)] == shifts


def test_a_draw_has_what_there_is_and_nothing_else():
    assert set(entry("gaussian_blur", sigma=1).draw(generator("x"), 2)) == {"sigma", "ratio", "angle", "shift"}
    two_widths = entry("gaussian_blur", sigma=1, across=[1, 2], size=21).draw(generator("x"), 2)
    assert set(two_widths) == {"sigma", "across", "angle", "size", "shift"}


def test_new_keys_leave_old_draws_as_they_were():
    plain = entry("gaussian_blur", sigma=[1, 2], ratio=[1, 2], angle=[0, 90])
    rng = generator("x")
    expected = dict(zip(("sigma", "ratio", "angle"), rng.random(3), strict=True))
    drawn = plain.draw(generator("x"), 4)
    assert drawn == pytest.approx(
        {"sigma": 1 + expected["sigma"], "ratio": 1 + expected["ratio"], "angle": 90 * expected["angle"], "shift": 0}
    )
    assert plain.content() == {"op": "gaussian_blur", "sigma": [1, 2], "ratio": [1, 2], "angle": [0, 90]}


@pytest.mark.parametrize(
    ("op", "keys", "message"),
    [
        ("generalised_blur", {"sigma": 1, "beta": 1, "size": 20}, "20 is even; write an odd number"),
        ("gaussian_blur", {"sigma": 1, "size": 103}, "less than or equal to 101"),
        ("plateau_blur", {"sigma": 1, "beta": 1, "size": 1}, "greater than or equal to 3"),
        ("gaussian_blur", {"sigma": 1, "across": 2, "ratio": 2}, "remove one of them"),
        ("sinc_blur", {"cutoff": 0}, "must be above 0"),
        ("sinc_blur", {"cutoff": 3.2}, "3.2 is above 3.14159"),
        ("motion_blur", {"length": 4, "curvature": 3}, "3 is above 2"),
        ("defocus_blur", {"radius": 4, "centre": "middle"}, "'pixel' or 'block'"),
    ],
)
def test_wrong_keys_are_named_in_one_line(op, keys, message):
    with pytest.raises(ValidationError) as caught:
        entry(op, **keys)
    (error,) = caught.value.errors()
    assert message in error["msg"]


def test_widths_can_be_written_per_scale():
    blur = entry("gaussian_blur", sigma=1, across={"per_scale": {2: [1, 2], 4: 3}})
    assert isinstance(blur.across, PerScale)
    assert blur.draw(generator("x"), 4)["across"] == 3
    with pytest.raises(ValueError, match=r"no range for scale 3, only for 2, 4"):
        blur.check_scale(3)


def test_every_blur_can_be_centred_on_the_block():
    assert set(BLURS) == {
        *("gaussian_blur", "generalised_blur", "plateau_blur", "motion_blur", "defocus_blur", "sinc_blur"),
        "kernel_file",
    }
    assert all(blur.model_fields["centre"].default == "pixel" for blur in BLURS.values())
    assert Uniform((1.0, 1.0)) == BLURS["defocus_blur"].model_fields["edge"].default


def test_apply_is_prepared_once_for_many_images(noise_image, monkeypatch):
    calls: list[object] = []
    original: Callable[..., np.ndarray] = BLURS["sinc_blur"].kernel
    monkeypatch.setattr(BLURS["sinc_blur"], "kernel", staticmethod(lambda params: calls.append(1) or original(params)))
    for seed in range(3):
        apply("sinc_blur", noise_image(9, 9, seed), cutoff=0.7654321, size=9, shift=0.0)
    assert len(calls) == 1
