"""Every kind of photograph, restored to every format: channels, depth, size, profile, orientation, EXIF and colour."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from metarestore.config.model import FSRCNNSpec
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, save_model
from metarestore.models.parameters import initial_vector
from metarestore.models.restore import image_restorer
from metarestore.restoration.colour import COLOUR_BOUND, MeanColour, bicubic_mean, colour_shift
from metarestore.restoration.formats import FORMATS, layout_of
from metarestore.restoration.metadata import Metadata
from metarestore.restoration.outcome import Failed
from metarestore.restoration.photograph import Options, RestorePhotograph, Written
from metarestore.restoration.writing import writer
from metarestore.tasks.photographs import read_picture
from metarestore.tasks.png import write_png

HEIGHT, WIDTH = 24, 36
DRAWN = np.random.default_rng(1).uniform(40, 215, (6, 9, 4)).astype(np.float32)
SMOOTH = cv2.resize(DRAWN, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).clip(0, 255).round().astype(np.uint8)
RGB, RGBA = np.ascontiguousarray(SMOOTH[..., :3]), SMOOTH
GRAY, LA = np.ascontiguousarray(SMOOTH[..., 0]), np.ascontiguousarray(SMOOTH[..., [0, 3]])
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_ICC = SRGB[:16] + b"GRAY" + SRGB[20:]


def deep(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * 257


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x0132] = orientation, "Maker", "2026:01:02 03:04:05"
    block[0x8769] = {0x9003: "2026:01:02 03:04:05", 0x829A: (1, 50), 0xA002: 7, 0xA003: 7}
    block[0x8825] = {1: "N", 2: (48.0, 8.0, 1.5)}
    return block


def by_pillow(mode: str, **options: Any) -> Callable[[Path, np.ndarray, int, bytes | None], None]:
    def save(path: Path, pixels: np.ndarray, orientation: int, icc: bytes | None) -> None:
        image = Image.fromarray(pixels)
        image = image.quantize() if mode == "P" else image.convert(mode)
        image.save(path, exif=exif(orientation).tobytes(), icc_profile=icc, **options)

    return save


def deep_png(path: Path, pixels: np.ndarray, orientation: int, icc: bytes | None) -> None:
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    content = io.BytesIO()
    block = exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    write_png(content, [planes], planes.shape[:2], icc=icc, exif=block)
    path.write_bytes(content.getvalue())


def deep_tiff(path: Path, pixels: np.ndarray, orientation: int, icc: bytes | None) -> None:
    colours = 1 if pixels.ndim == 2 else pixels.shape[2]
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb" if colours > 2 else "minisblack",
        planarconfig="contig" if colours > 1 else None,
        extrasamples=["unassalpha"] if colours in (2, 4) else None,
        iccprofile=icc,
        metadata=None,
        extratags=[(0x0112, "H", 1, orientation, True), (0x010F, "s", 0, "Maker", True)],
    )


LOSSLESS = {"lossless": True, "exact": True}
KINDS: dict[str, tuple[str, np.ndarray, Callable[[Path, np.ndarray, int, bytes | None], None]]] = {
    "gray": ("png", GRAY, by_pillow("L")),
    "gray jpeg": ("jpg", GRAY, by_pillow("L", quality=98)),
    "gray tiff": ("tif", GRAY, by_pillow("L")),
    "gray and alpha": ("png", LA, by_pillow("LA")),
    "gray and alpha tiff": ("tif", LA, by_pillow("LA")),
    "rgb": ("png", RGB, by_pillow("RGB")),
    "rgb jpeg": ("jpg", RGB, by_pillow("RGB", quality=98)),
    "rgb webp": ("webp", RGB, by_pillow("RGB", **LOSSLESS)),
    "rgb tiff": ("tif", RGB, by_pillow("RGB")),
    "rgba": ("png", RGBA, by_pillow("RGBA")),
    "rgba webp": ("webp", RGBA, by_pillow("RGBA", **LOSSLESS)),
    "rgba tiff": ("tif", RGBA, by_pillow("RGBA")),
    "deep gray": ("png", deep(GRAY), deep_png),
    "deep gray tiff": ("tif", deep(GRAY), deep_tiff),
    "deep gray and alpha": ("png", deep(LA), deep_png),
    "deep gray and alpha tiff": ("tif", deep(LA), deep_tiff),
    "deep rgb": ("png", deep(RGB), deep_png),
    "deep rgb tiff": ("tif", deep(RGB), deep_tiff),
    "deep rgba": ("png", deep(RGBA), deep_png),
    "deep rgba tiff": ("tif", deep(RGBA), deep_tiff),
    "cmyk jpeg": ("jpg", RGB, by_pillow("CMYK", quality=98)),
    "cmyk tiff": ("tif", RGB, by_pillow("CMYK")),
    "palette": ("png", RGB, by_pillow("P")),
    "palette tiff": ("tif", RGB, by_pillow("P")),
}
ORIENTATIONS = (1, 6, 3, 8, 2, 5, 4, 7)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A small network that keeps the colours."""
    path = tmp_path_factory.mktemp("network") / "tiny.safetensors"
    spec = FSRCNNSpec(d=8, s=4, m=1)
    save_model(path, spec, 2, initial_vector(build_model(spec, 2, 0)))
    return Options(path, 2, keep_colours=True)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Applies an EXIF orientation, by its definition: where row 0 and column 0 of the stored picture are."""
    flipped = {2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1]}
    turned = pixels.swapaxes(0, 1)
    return {**flipped, 5: turned, 6: turned[:, ::-1], 7: turned[::-1, ::-1], 8: turned[::-1]}.get(orientation, pixels)


def written(job: RestorePhotograph) -> Written:
    result = job.run(torch.device("cpu"))
    assert isinstance(result, Written), result
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_a_photograph_of_any_kind_is_restored_to_any_format(kind: str, options: Options, tmp_path: Path) -> None:
    ending, pixels, save = KINDS[kind]
    orientation = ORIENTATIONS[list(KINDS).index(kind) % 8]
    given_gray = pixels.ndim == 2 or pixels.shape[2] == 2
    icc = GRAY_ICC if given_gray else None if "cmyk" in kind else SRGB
    path = tmp_path / f"photo.{ending}"
    save(path, pixels, orientation, icc)
    given = read_picture(path).pixels
    expected = upright(pixels, orientation)
    assert given.shape == expected.shape
    assert given.dtype == pixels.dtype
    if "cmyk" not in kind:
        assert np.abs(given.astype(float) - expected).mean() < 8 * np.iinfo(pixels.dtype).max / 255
    for name, form in FORMATS.items():
        out = tmp_path / f"{name}{form.endings[0]}"
        result = written(RestorePhotograph(path, out, form, options))
        assert result.after == tuple(2 * side for side in result.before)
        assert result.shift <= COLOUR_BOUND
        check_file(out, name, given, result)
        if kind.startswith("deep gray and alpha") and name == "tiff":  # which Pillow does not open
            assert read_picture(out).icc == icc
        else:
            check_metadata(out, icc, name, result, exif_kept=ending == "tif" and pixels.dtype == np.uint16)
        assert ("reduced to 8" in " ".join(result.remarks)) == (pixels.dtype == np.uint16 and not form.deep)
        assert any("CMYK" in each for each in result.remarks) == ("cmyk" in kind)
        assert any("palette" in each for each in result.remarks) == ("palette" in kind)


def check_file(out: Path, name: str, given: np.ndarray, result: Written) -> None:
    """Checks channels, depth, size, and colour of a restored file."""
    restored = read_picture(out).pixels
    form = FORMATS[name]
    channels = 1 if given.ndim == 2 else given.shape[2]
    if not form.alpha and channels in (2, 4):
        channels -= 1
    if not form.gray and channels < 3:
        channels += 2
    high, wide = result.after
    assert restored.shape == ((high, wide) if channels == 1 else (high, wide, channels))
    assert restored.dtype == (given.dtype if form.deep else np.uint8)
    if channels not in (2, 4) and given.ndim == 3 and given.shape[2] in (2, 4):
        assert any("become white" in each for each in result.remarks)
        return
    expected = bicubic_mean(given, 2)
    mean = MeanColour()
    mean.add(restored)
    found = mean.value
    # A quality of 95 and the chroma of WebP, of half the resolution, may add a little.
    assert colour_shift(found, expected) <= COLOUR_BOUND + (0.0 if form.deep else 1.0)
    small = cv2.resize(restored.astype(np.float32), given.shape[1::-1], interpolation=cv2.INTER_AREA)
    first = given[..., 0] if given.ndim == 3 else given
    small = small[..., 0] if small.ndim == 3 else small
    assert np.corrcoef(small.ravel(), first.astype(float).ravel())[0, 1] > 0.97
    if channels in (2, 4):
        alpha = cv2.resize(restored[..., -1].astype(np.float32), given.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.corrcoef(alpha.ravel(), given[..., -1].astype(float).ravel())[0, 1] > 0.97


def check_metadata(out: Path, icc: bytes | None, name: str, result: Written, *, exif_kept: bool) -> None:
    """Checks profile and EXIF data of a restored file; `exif_kept`: only what tifffile could write was given."""
    with Image.open(out) as image:
        image.load()
        tags = image.getexif()
        kept = not any("colour profile" in each and "left out" in each for each in result.remarks)
        assert image.info.get("icc_profile") == (icc if kept else None)
        assert kept or (icc == GRAY_ICC and name == "webp")
        assert tags.get(0x0112, 1) == 1
        if any("EXIF data cannot be read" in each for each in result.remarks):
            assert exif_kept
            return
        assert tags[0x010F] == "Maker"
        if exif_kept:
            return
        inner = tags.get_ifd(0x8769)
        assert tags[0x0132] == inner[0x9003] == "2026:01:02 03:04:05"
        assert float(inner[0x829A][0] / inner[0x829A][1] if isinstance(inner[0x829A], tuple) else inner[0x829A]) == 0.02
        assert (inner[0xA002], inner[0xA003]) == result.after[::-1]
        assert tags.get_ifd(0x8825)[1] == "N"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (1, 40)])
def test_the_smallest_photographs_are_restored(
    name: str, size: tuple[int, int], options: Options, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), RGB[:1, :1].repeat(size[0], axis=0).repeat(size[1], axis=1))
    form = FORMATS[name]
    job = RestorePhotograph(tmp_path / "a.png", tmp_path / f"b{form.endings[0]}", form, replace(options, compare=True))
    result = written(job)
    assert read_picture(job.out).pixels.shape[:2] == result.after == (2 * size[0], 2 * size[1])
    assert result.shift <= COLOUR_BOUND
    assert [crop.restored.shape for crop in result.comparisons] == [crop.bicubic.shape for crop in result.comparisons]


def bomb(path: Path) -> None:
    """Writes a PNG file of a few hundred bytes that states 30000x30000 pixels."""
    content = io.BytesIO()
    write_png(content, [np.zeros((1, 8, 3), np.uint8)], (30_000, 30_000))
    path.write_bytes(content.getvalue())


def cut(path: Path, ending: str) -> None:
    whole = path.with_name(f"whole.{ending}")
    Image.fromarray(np.tile(RGB, (8, 8, 1))).save(whole)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


def cut_deep(path: Path, pixels: np.ndarray) -> None:
    deep_tiff(path, deep(pixels), 1, None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


HOSTILE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("a.png", lambda path: path.write_bytes(b""), "damaged, or not"),
    "no picture": ("a.jpg", lambda path: path.write_bytes(b"no picture at all"), "damaged, or not"),
    "missing": ("a.jpg", lambda path: None, "cannot be read"),
    "raw": ("a.nef", lambda path: path.write_bytes(b"II*\0"), "raw file"),
    "cut png": ("a.png", lambda path: cut(path, "png"), "damaged, or not"),
    "cut webp": ("a.webp", lambda path: cut(path, "webp"), "damaged, or not"),
    "cut tiff": ("a.tif", lambda path: cut(path, "tif"), "damaged, or not"),
    "cut deep tiff": ("a.tif", lambda path: cut_deep(path, RGB), "damaged, or not"),
    "cut deep tiff with alpha": ("a.tif", lambda path: cut_deep(path, LA), "damaged, or not"),
    "bomb": ("a.png", bomb, "30000x30000 to 60000x60000 pixels as PNG takes about .* GB of memory, and 1.0 GB are"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_cannot_be_restored_is_one_line_and_leaves_nothing(
    case: str, options: Options, tmp_path: Path
) -> None:
    name, write, message = HOSTILE[case]
    write(tmp_path / name)
    out = tmp_path / "out"
    limited = replace(options, memory=10**9)
    result = RestorePhotograph(tmp_path / name, out / "b.png", FORMATS["png"], limited).run(torch.device("cpu"))
    assert isinstance(result, Failed)
    (problem,) = result.problems
    assert "\n" not in problem
    assert name in problem
    assert re.search(message, problem), problem
    assert not out.exists() or not list(out.iterdir())


def test_damage_in_the_middle_of_the_work_leaves_the_old_file(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), RGB)
    (tmp_path / "b.png").write_bytes(b"old")

    def broken(*_: object, **__: object) -> Callable[[Any], Any]:
        def strips(pixels: np.ndarray) -> Any:
            yield np.zeros((4, 2 * WIDTH, 3), np.uint8)
            raise OSError(28, "No space left on device")

        return strips

    monkeypatch.setattr("metarestore.restoration.photograph.strip_restorer", broken)
    result = RestorePhotograph(tmp_path / "a.png", tmp_path / "b.png", FORMATS["png"], options).run(torch.device("cpu"))
    assert isinstance(result, Failed)
    assert "make room" in result.problems[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    assert (tmp_path / "b.png").read_bytes() == b"old"


def test_damaged_exif_data_are_left_out(options: Options, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif(1).tobytes()[:40] + b"\xff" * 60)
    job = RestorePhotograph(tmp_path / "a.jpg", tmp_path / "b.png", FORMATS["png"], options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = written(job)
    assert read_picture(tmp_path / "b.png").pixels.shape[:2] == result.after


def test_a_picture_that_is_too_long_for_a_format_is_refused(options: Options, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 9000, 3), np.uint8))
    result = RestorePhotograph(tmp_path / "a.png", tmp_path / "b.webp", FORMATS["webp"], options).run(
        torch.device("cpu")
    )
    assert isinstance(result, Failed)
    assert "18000x4 pixels, and WEBP stores sides of at most 16383; write PNG or TIFF" in result.problems[0]


def test_cmyk_with_a_broken_profile_is_converted_without_it(options: Options, tmp_path: Path) -> None:
    icc = SRGB[:16] + b"CMYK" + SRGB[20:]
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=icc)
    job = RestorePhotograph(tmp_path / "a.jpg", tmp_path / "b.png", FORMATS["png"], options)
    assert written(job).remarks == ("its CMYK is converted to RGB without a colour profile",)
    assert read_picture(job.out).icc is None


def test_a_plain_network_is_measured_but_not_changed(options: Options, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), RGB)
    plain = replace(options, keep_colours=False)
    job = RestorePhotograph(tmp_path / "a.png", tmp_path / "b.png", FORMATS["png"], plain)
    shift, pixels = written(job).shift, read_picture(tmp_path / "a.png").pixels
    restored = read_picture(job.out).pixels
    np.testing.assert_array_equal(restored, image_restorer(load_model(plain.network))(pixels))
    difference = restored.mean(axis=(0, 1)) - bicubic_mean(pixels, 2)
    assert shift == pytest.approx(np.abs(difference).max())
    assert shift > COLOUR_BOUND  # it was not trained


@pytest.mark.parametrize("pixels", [RGB, GRAY, deep(RGBA)], ids=["RGB", "gray", "deep RGBA"])
@pytest.mark.parametrize("strip", [10**6, 3 * WIDTH])
def test_png_and_tiff_hold_what_was_restored(pixels: np.ndarray, strip: int, tmp_path: Path) -> None:
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    rows = max(strip // WIDTH, 1)
    layout = layout_of(pixels)
    for name in ("png", "tiff"):
        write, remarks = writer(FORMATS[name], layout, Metadata(), 95)
        path = tmp_path / f"a{FORMATS[name].endings[0]}"
        with path.open("w+b") as file:
            write(file, (planes[top : top + rows] for top in range(0, HEIGHT, rows)))
        assert remarks == []
        np.testing.assert_array_equal(read_picture(path).pixels, pixels)


def test_tags_that_tiff_cannot_hold_are_left_out(options: Options, tmp_path: Path) -> None:
    block = exif(1)
    block[0x011A], block[0x011B] = IFDRational(1, 0), IFDRational(72, 1)
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=block.tobytes())
    job = RestorePhotograph(tmp_path / "a.jpg", tmp_path / "b.tif", FORMATS["tiff"], options)
    assert written(job).remarks == ()
    with Image.open(job.out) as image:
        assert image.getexif()[0x010F] == "Maker"
