"""Kernels from files: formats, centres, draws that need no file, and one line for everything that can be wrong."""

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import io, ndimage

from metarestore.degradations import DegradationDraw, Pipeline, replay
from metarestore.degradations.kernel_file import KernelFile, load_kernels
from metarestore.degradations.kernels import gaussian_kernel, mass_centre
from metarestore.seeds import generator

SEEDS = [11, 22, 33, 44]


def pool(count: int = 3, size: int = 15) -> np.ndarray:
    """Returns lopsided kernels (count, size, size) in whole numbers up to 255, so that a PNG can hold them."""
    y, x = np.mgrid[:size, :size]
    bells = [np.exp(-0.5 * (((y - 6 - k) / 1.5) ** 2 + ((x - 8) / (1 + 0.4 * k)) ** 2)) for k in range(count)]
    return np.stack([np.round(255 * bell) for bell in bells])


def save_mat(path: Path, **variables: object) -> Path:
    io.savemat(path, variables)
    return path


def save_npy(path: Path, kernels: np.ndarray) -> Path:
    np.save(path, kernels)
    return path


def save_png(path: Path, levels: np.ndarray) -> Path:
    cv2.imwrite(str(path), levels)
    return path


def cell(kernels: np.ndarray) -> np.ndarray:
    cells = np.empty((1, len(kernels)), dtype=object)
    for index, kernel in enumerate(kernels):
        cells[0, index] = kernel
    return cells


def entry(path: Path, **keys: object) -> KernelFile:
    (operation,) = Pipeline.model_validate([{"op": "kernel_file", "path": str(path), **keys}]).operations
    assert isinstance(operation, KernelFile)
    return operation


def drawn_kernel(path: Path, scale: int = 4, **keys: object) -> np.ndarray:
    return KernelFile.kernel(entry(path, **keys).draw(generator("x"), scale))


def test_one_kernel_is_the_same_from_every_format(tmp_path):
    (kernel,) = pool(1)
    files = [
        save_mat(tmp_path / "a.mat", k=kernel),
        save_npy(tmp_path / "a.npy", kernel),
        save_npy(tmp_path / "b.npy", kernel[None].astype(np.float32)),
        save_png(tmp_path / "a.png", kernel.astype(np.uint8)),
        save_png(tmp_path / "b.png", (kernel * 257).astype(np.uint16)),
        save_png(tmp_path / "c.png", np.repeat(kernel[..., None], 3, axis=2).astype(np.uint8)),
    ]
    draws = [entry(file).draw(generator("x"), 4) for file in files]
    assert all(draw["kernel"] == draws[0]["kernel"] for draw in draws)
    assert len({entry(file).content()["kernels"] for file in files}) == 1


@pytest.mark.parametrize(
    "save",
    [
        lambda path, kernels: save_mat(path / "cells.mat", kernels=cell(kernels), scale=2, widths=np.ones((3, 2))),
        lambda path, kernels: save_mat(path / "last.mat", kernels=np.moveaxis(kernels, 0, -1)),
        lambda path, kernels: save_mat(path / "first.mat", kernels=kernels),
        lambda path, kernels: save_npy(path / "stack.npy", kernels),
    ],
    ids=["cells", "stacked last", "stacked first", "npy"],
)
def test_a_pool_is_read_in_order(save, tmp_path):
    kernels = pool(3)
    read = load_kernels(save(tmp_path, kernels))
    assert len(read) == 3
    for kernel, original in zip(read, kernels, strict=True):
        assert kernel.dtype == np.float32
        assert np.allclose(kernel, original / original.sum(), atol=1e-7)


def test_matlab_stacks_cubes_along_the_last_axis(tmp_path):
    cube = np.random.default_rng(0).random((5, 5, 5))
    last = load_kernels(save_mat(tmp_path / "k.mat", k=cube))
    first = load_kernels(save_npy(tmp_path / "k.npy", cube))
    assert np.allclose(last[1], cube[..., 1] / cube[..., 1].sum())
    assert np.allclose(first[1], cube[1] / cube[1].sum())


def test_key_chooses_a_variable(tmp_path):
    small, large = pool(1, 13)[0], pool(1, 17)[0]
    file = save_mat(tmp_path / "k.mat", small=small, large=large)
    assert load_kernels(file, "large")[0].shape == (17, 17)
    assert load_kernels(save_mat(tmp_path / "r.mat", k=np.ones((5, 9))))[0].shape == (5, 9)


def test_negative_values_stay(tmp_path):
    kernel = np.array([[0, -1, 0], [-1, 8, -1], [0, -1, 0]])
    (read,) = load_kernels(save_npy(tmp_path / "k.npy", kernel))
    assert np.allclose(read, kernel / 4)


def test_a_file_that_is_written_anew_is_read_anew(tmp_path):
    path = save_npy(tmp_path / "k.npy", np.ones((3, 3)))
    assert load_kernels(path)[0].shape == (3, 3)
    save_npy(path, np.ones((5, 5)))
    assert load_kernels(path)[0].shape == (5, 5)


@pytest.mark.parametrize("shape", [(1, 1, 15, 15), (15, 15, 1), (1, 15, 15), (15, 1, 15, 1), (1, 1, 1, 15, 15)])
@pytest.mark.parametrize("where", ["mat", "npy", "cell"])
def test_axes_of_length_1_are_dropped(where, shape, tmp_path):
    (kernel,) = pool(1)
    shaped = kernel.reshape(shape)
    if where == "npy":
        path = save_npy(tmp_path / "k.npy", shaped)
    else:
        path = save_mat(tmp_path / "k.mat", Kernel=cell([shaped]) if where == "cell" else shaped, scale=4)
    (read,) = load_kernels(path)
    assert np.allclose(read, kernel / kernel.sum(), atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 3, 15, 15), (3, 1, 15, 15)])
def test_a_stack_may_have_axes_of_length_1(shape, tmp_path):
    kernels = pool(3)
    shaped = kernels.reshape(shape)
    for path in (save_npy(tmp_path / "k.npy", shaped), save_mat(tmp_path / "k.mat", k=shaped)):
        read = load_kernels(path)
        assert np.allclose(np.stack(read), kernels / kernels.sum((1, 2), keepdims=True), atol=1e-7)


MEANT = [
    ({}, "correlate"),
    ({"orientation": "correlation"}, "correlate"),
    ({"orientation": "convolution"}, "convolve"),
    ({"source": "kernelgan"}, "correlate"),
    ({"source": "kair"}, "convolve"),
    ({"source": "usrnet"}, "convolve"),
    ({"source": "levin"}, "convolve"),
    ({"source": "levin", "orientation": "correlation"}, "correlate"),
    ({"source": "kernelgan", "orientation": "convolution"}, "convolve"),
]


@pytest.mark.parametrize(("keys", "function"), MEANT)
@pytest.mark.parametrize("size", [15, 16])
def test_orientation_decides_between_correlation_and_convolution(keys, function, size, tmp_path):
    (kernel,) = pool(1, size)
    path = save_npy(tmp_path / "k.npy", kernel)
    image = np.random.default_rng(0).random((48, 52), np.float32)
    draws = Pipeline.model_validate([{"op": "kernel_file", "path": str(path), "recentre": False, **keys}]).draw((0,), 1)
    found = replay(torch.from_numpy(image).expand(1, 3, -1, -1), draws, [0])[0, 0].numpy()
    # The middle of an even kernel lies right of and below the output pixel, whichever way it is turned.
    origin = -1 if size % 2 == 0 and function == "correlate" else 0
    expected = getattr(ndimage, function)(image, kernel / kernel.sum(), mode="reflect", origin=origin)
    assert np.abs(found - expected)[16:-16, 16:-16].max() <= 0.51 / 255 + 1e-5


def test_without_the_keys_everything_is_as_it_was(tmp_path):
    path = save_npy(tmp_path / "k.npy", pool(3))
    plain, said = entry(path), entry(path, source="kernelgan")
    assert plain.content() == said.content() == {"op": "kernel_file", "kernels": "fb43fec095da70fd"}
    assert plain.draw(generator("x"), 4) == said.draw(generator("x"), 4)
    assert set(plain.draw(generator("x"), 4)) == {"file", "index", "digest", "rows", "kernel"}


def test_content_is_that_of_the_turned_kernels(tmp_path):
    lopsided, symmetric = save_npy(tmp_path / "l.npy", pool(3)), save_npy(tmp_path / "s.npy", np.ones((3, 3)))
    turned = save_npy(tmp_path / "t.npy", pool(3)[:, ::-1, ::-1])
    assert entry(lopsided, source="kair").content() == entry(turned).content() != entry(lopsided).content()
    assert entry(symmetric, source="kair").content() == entry(symmetric).content()


@pytest.mark.parametrize(("centre", "scale", "shift"), [("pixel", 4, 0), ("block", 4, 0.5), ("block", 3, 0)])
@pytest.mark.parametrize("size", [15, 16])
def test_recentred_kernels_have_their_mass_centre_in_their_middle(size, centre, scale, shift, tmp_path):
    path = save_npy(tmp_path / "k.npy", pool(3, size))
    kernel = drawn_kernel(path, scale, centre=centre)
    assert len(kernel) % 2 == (shift == 0)
    assert mass_centre(kernel) == pytest.approx(((len(kernel) - 1) // 2 + shift,) * 2, abs=1e-3)


def test_a_centred_kernel_is_left_alone(tmp_path):
    odd, even = gaussian_kernel(1.5, 1.5, 30.0), gaussian_kernel(1.5, 1.5, 30.0, shift=0.5)
    for kernel, centre in ((odd, "pixel"), (even, "block")):
        read = drawn_kernel(save_npy(tmp_path / f"{centre}.npy", kernel), centre=centre)
        rim = (len(kernel) - len(read)) // 2
        assert np.abs(np.pad(read, rim) - kernel).max() < 1e-5


def test_without_recentring_a_kernel_lies_as_it_is(tmp_path):
    kernels = pool(1, 16)
    read = drawn_kernel(save_npy(tmp_path / "k.npy", kernels), recentre=False)
    assert np.allclose(read, kernels[0] / kernels[0].sum(), atol=1e-7)


@pytest.mark.parametrize(("size", "move"), [(3, 0.0), (4, 0.5)])
def test_the_middle_of_an_even_kernel_lies_half_a_pixel_on(size, move, tmp_path):
    path = save_npy(tmp_path / "k.npy", np.ones((size, size)))
    draws = Pipeline.model_validate([{"op": "kernel_file", "path": str(path), "recentre": False}]).draw((0,), 1)
    slope = torch.arange(51.0).expand(1, 3, 51, 51) / 51
    moved = (replay(slope, draws, [0]) - slope)[0, 0, 10:-10, 10:-10] * 51
    assert moved.mean().item() == pytest.approx(move, abs=0.02)


def pipeline(path: Path, **keys: object) -> Pipeline:
    return Pipeline.model_validate([{"op": "kernel_file", "path": str(path), **keys}])


@pytest.fixture(params=["few taps", "many taps", "separable"])
def file(request, tmp_path) -> Path:
    """A file of kernels for each of the ways to filter."""
    kernels = {
        "few taps": pool(3),
        "many taps": np.random.default_rng(0).random((3, 19, 19)),
        "separable": np.ones((3, 5, 7)),
    }
    return save_npy(tmp_path / "k.npy", kernels[request.param])


def test_replays_from_json_without_the_file(file):
    images = torch.rand(4, 3, 44, 52, generator=torch.Generator().manual_seed(0))
    draws = pipeline(file).draw((1,), 4)
    expected = replay(images, draws, SEEDS)
    file.unlink()
    again = tuple(DegradationDraw.from_json(json.loads(json.dumps(draw.to_json()))) for draw in draws)
    assert again == draws
    assert torch.equal(replay(images, again, SEEDS), expected)
    assert (replay(images, again, SEEDS, "torch") - expected).abs().max() <= 1.01 / 255


def test_image_depends_neither_on_batch_nor_order_nor_threads_nor_layout(file):
    images = torch.rand(4, 3, 144, 152, generator=torch.Generator().manual_seed(0))
    draws = pipeline(file).draw((1,), 4)
    together = replay(images, draws, SEEDS)
    before = cv2.getNumThreads()
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            alone = [replay(images[k : k + 1], draws, SEEDS[k : k + 1])[0] for k in (3, 0, 2, 1)]
            assert torch.equal(torch.stack(alone), together[[3, 0, 2, 1]])
            layout = images.contiguous(memory_format=torch.channels_last)
            assert torch.equal(replay(layout, draws, SEEDS), together)
    finally:
        cv2.setNumThreads(before)


def test_every_kernel_of_the_pool_is_drawn_equally_often(tmp_path):
    distribution = entry(save_npy(tmp_path / "k.npy", pool(3)))
    rng = generator("x")
    indices = [distribution.draw(rng, 4)["index"] for _ in range(300)]
    assert all(70 < indices.count(index) < 130 for index in range(3))


def test_a_protocol_lists_every_kernel(tmp_path):
    cases = pipeline(save_npy(tmp_path / "k.npy", pool(3))).cases(1)
    assert [case[0].params["index"] for case in cases] == [0, 1, 2]
    assert len({case[0].params["digest"] for case in cases}) == 3


def test_content_is_that_of_the_kernels_not_of_the_place(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    here = save_npy(tmp_path / "k.npy", pool(3))
    there = save_npy(tmp_path / "elsewhere" / "other.npy", pool(3))
    other = save_npy(tmp_path / "l.npy", pool(2))
    assert entry(here).content() == entry(there).content()
    assert entry(here).content() != entry(other).content()
    assert entry(here).content() != entry(here, recentre=False).content()
    assert entry(here).content() == entry(here, recentre=True).content()
    assert here.parent.name not in json.dumps(entry(here).content())
    first, second = (entry(path).draw(generator("x"), 4) for path in (here, there))
    assert {**first, "file": ""} == {**second, "file": ""}


def test_digest_changes_with_the_drawn_kernel(tmp_path):
    path = save_npy(tmp_path / "k.npy", pool(1))
    digests = [entry(path, centre=centre).draw(generator("x"), 4)["digest"] for centre in ("pixel", "block", "pixel")]
    assert digests[0] == digests[2] != digests[1]
    assert len(digests[0]) == 16


def test_relative_paths_start_where_they_are_told_to(tmp_path, monkeypatch):
    save_npy(tmp_path / "k.npy", pool(1))
    relative = entry(Path("k.npy"))
    with pytest.raises(ValueError, match=r"^there is no file k\.npy"):
        relative.content()
    rooted = relative.rooted(tmp_path)
    assert rooted.path == tmp_path / "k.npy"
    assert rooted.rooted(Path("/elsewhere")) == rooted
    monkeypatch.chdir(tmp_path)
    assert relative.content() == rooted.content()
    assert relative.draw(generator("x"), 4) == rooted.draw(generator("x"), 4)


def test_centre_without_recentring_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="centre has no effect when recentre is false"):
        entry(tmp_path / "k.npy", centre="block", recentre=False)


HDF5 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512)


def pickled(path: Path) -> Path:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    return path


def text(path: Path, content: bytes = b"no kernel") -> Path:
    path.write_bytes(content)
    return path


MATLAB_73 = (
    r"cannot be read as a \.mat file"
    if importlib.util.find_spec("h5py")
    else r"MATLAB 7.3 .*install h5py \(pip install h5py\), or save it with the option -v7"
)
"""This content is only the signature: it is damaged for those who have the library."""

WRONG: dict[str, tuple[Callable[[Path], Path], str | None, str]] = {
    "missing": (lambda at: at / "k.npy", None, r"there is no file .*k.npy; check the path"),
    "a folder": (lambda at: at, None, "there is no file"),
    "suffix": (lambda at: text(at / "k.txt"), None, "is not a kernel file; supported formats are .mat, .npy, .png"),
    "no mat": (lambda at: text(at / "k.mat"), None, "cannot be read as a .mat file"),
    "no npy": (lambda at: text(at / "k.npy"), None, "cannot be read as a .npy file"),
    "no png": (lambda at: text(at / "k.png"), None, "cannot be read as a .png file"),
    "empty mat": (lambda at: text(at / "k.mat", b""), None, "cannot be read as a .mat file"),
    "empty npy": (lambda at: text(at / "k.npy", b""), None, "cannot be read as a .npy file"),
    "empty png": (lambda at: text(at / "k.png", b""), None, "cannot be read as a .png file"),
    "MATLAB 7.3": (lambda at: text(at / "k.mat", HDF5), None, MATLAB_73),
    "pickle": (lambda at: pickled(at / "k.npy"), None, "cannot be read as a .npy file"),
    "several": (
        lambda at: save_mat(at / "k.mat", a=pool(1)[0], b=pool(1)[0], c=3),
        None,
        "has several variables that could be kernels; set key to a or b",
    ),
    "no variable": (lambda at: save_mat(at / "k.mat", a=pool(1)[0]), "b", "has no variable 'b'; its variables: a"),
    "hidden variable": (lambda at: save_mat(at / "k.mat", a=1), "__header__", "has no variable '__header__'"),
    "no kernel": (
        lambda at: save_mat(at / "k.mat", scale=2, name="x"),
        None,
        "no kernel; its variables: scale, name",
    ),
    "no variables": (lambda at: save_mat(at / "k.mat"), None, "holds no kernel; its variables: none"),
    "no cells": (lambda at: save_mat(at / "k.mat", a=cell([])), "a", "holds no kernel"),
    "key of npy": (lambda at: save_npy(at / "k.npy", pool(1)), "a", "has no variable 'a'; its variables: none"),
    "words": (lambda at: save_mat(at / "k.mat", a="some words"), "a", "shape|values; a kernel has real numbers"),
    "empty stack": (lambda at: save_npy(at / "k.npy", np.ones((0, 3, 3))), None, "holds no kernel"),
    "empty kernel": (lambda at: save_npy(at / "k.npy", np.ones((0, 3))), None, "has the shape 0x3; .* two dimensions"),
    "a number": (lambda at: save_npy(at / "k.npy", np.float64(3)), None, "has the shape a single number"),
    "a line": (
        lambda at: save_npy(at / "k.npy", np.ones(9)),
        None,
        "has the shape 9; .* two dimensions",
    ),
    "four axes": (lambda at: save_npy(at / "k.npy", np.ones((2, 2, 3, 3))), None, "has the shape 2x2x3x3"),
    "large": (lambda at: save_npy(at / "k.npy", np.ones((130, 5))), None, "is 130x5; .* at most 129x129 pixels"),
    "complex": (lambda at: save_npy(at / "k.npy", np.full((3, 3), 1j)), None, "holds complex128 values"),
    "not finite": (lambda at: save_npy(at / "k.npy", np.full((3, 3), np.nan)), None, "a value that is not finite"),
    "too much": (lambda at: save_npy(at / "k.npy", np.full((3, 3), 1e308)), None, "sums to inf"),
    "nothing": (lambda at: save_npy(at / "k.npy", np.zeros((2, 3, 3))), None, "kernel 0 of .*k.npy sums to 0; "),
    "second": (lambda at: save_npy(at / "k.npy", np.stack([np.eye(3), -np.eye(3)])), None, "kernel 1 of .* sums to -3"),
    "no centre": (
        lambda at: save_npy(at / "k.npy", np.array([[-8, 0, 9.0]])),
        None,
        "mass outside the kernel",
    ),
    "colour": (
        lambda at: save_png(at / "k.png", np.arange(75, dtype=np.uint8).reshape(5, 5, 3)),
        None,
        "is not grayscale; save it as a grayscale image",
    ),
    "line break": (lambda at: at / "a\nb.npy", None, r"there is no file '.*a\\nb.npy'"),
    "zero byte": (lambda at: at / "a\0.npy", None, "there is no file"),
    "long name": (lambda at: at / ("a" * 5000 + ".npy"), None, "there is no file"),
}


@pytest.mark.parametrize(("make", "key", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_line(make, key, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        load_kernels(make(tmp_path), key)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    np.save(tmp_path / "k.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read"):
        load_kernels(tmp_path / "k.npy")
    assert not (tmp_path / "trapped").exists()
