"""Photographs as people have them: other channels and depths, damaged, small, and beside files of other kinds."""

import importlib.util
import io
import logging
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from metarestore import notices
from metarestore.errors import UserError
from metarestore.evaluation.folder import bicubic_restore, evaluate_folder
from metarestore.tasks import decoding
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.photographs import list_photographs, read_image, read_picture, write_image
from metarestore.tasks.synthetic import SyntheticSpec, SyntheticTasks
from metarestore.tasks.task import Episode

HEIGHT, WIDTH = 40, 56
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GRAY = RGB[..., 0]
ALPHA = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
RGBA, LA = np.dstack([RGB, ALPHA]), np.dstack([GRAY, ALPHA])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METARESTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(notices, "_given", set())


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def deep(pixels: np.ndarray) -> np.ndarray:
    """Returns 16-bit values whose 8-bit version is `pixels`."""
    return pixels.astype(np.uint16) * 257


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


GRAY_FILES = {
    "l.png": lambda path: save(path, GRAY),
    "la.png": lambda path: save(path, LA),
    "la.tif": lambda path: save(path, LA),
    "l16.png": lambda path: cv2.imwrite(str(path), deep(GRAY)),
    "la16.png": lambda path: write_image(path, deep(LA)),
    "l_transparent.png": lambda path: save(path, GRAY, transparency=3),
    "l.bmp": lambda path: save(path, GRAY),
    "l.tif": lambda path: save(path, GRAY),
    "turned_la.png": lambda path: save(path, np.rot90(LA), exif=exif(6)),
}


@pytest.mark.parametrize("name", GRAY_FILES)
def test_a_gray_picture_is_gray_and_its_own_luma_however_it_is_stored(name, folder, tmp_path):
    GRAY_FILES[name](folder / name)
    photograph = read_image(folder / name)
    assert photograph.gray
    np.testing.assert_array_equal(photograph.pixels, np.repeat(GRAY[..., None], 3, 2))
    plain = tmp_path / "plain"
    plain.mkdir()
    save(plain / "gray.png", GRAY)
    reports = [evaluate_folder(where, 4, bicubic_restore(4)).psnr_y for where in (folder, plain)]
    assert reports[0] == reports[1]


PICTURES = {
    "rgba.png": (lambda path: save(path, RGBA), RGBA),
    "rgba.tif": (lambda path: save(path, RGBA), RGBA),
    "rgba.webp": (lambda path: save(path, RGBA, lossless=True, exact=True), RGBA),
    "la.png": (lambda path: save(path, LA), LA),
    "la.tif": (lambda path: save(path, LA), LA),
    "rgba16.png": (lambda path: write_image(path, deep(RGBA)), deep(RGBA)),
    "la16.png": (lambda path: write_image(path, deep(LA)), deep(LA)),
    "rgb16.tif": (lambda path: cv2.imwrite(str(path), deep(RGB)[..., ::-1]), deep(RGB)),
    "l16.png": (lambda path: write_image(path, deep(GRAY)), deep(GRAY)),
    "turned.png": (lambda path: save(path, np.rot90(RGBA), exif=exif(6)), RGBA),
    "one colour.png": (lambda path: save(path, GRAY, transparency=3), np.dstack([GRAY, np.where(GRAY == 3, 0, 255)])),
    "rgb.png": (lambda path: save(path, RGB), RGB),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_keeps_alpha_and_depth(name, tmp_path):
    write, expected = PICTURES[name]
    write(tmp_path / name)
    pixels = read_picture(tmp_path / name).pixels
    np.testing.assert_array_equal(pixels, expected)
    write_image(tmp_path / "again.png", pixels)
    again = read_picture(tmp_path / "again.png").pixels
    assert again.dtype == pixels.dtype
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_alpha_is_turned_with_its_picture(orientation, tmp_path):
    write_image(tmp_path / "upright.png", deep(RGBA))
    data = (tmp_path / "upright.png").read_bytes()
    stored = io.BytesIO()
    Image.new("L", (1, 1)).save(stored, "png", exif=exif(orientation))
    start = stored.getvalue().index(b"eXIf") - 4
    length = 12 + int.from_bytes(stored.getvalue()[start : start + 4], "big")
    (tmp_path / "turned.png").write_bytes(data[:33] + stored.getvalue()[start : start + length] + data[33:])
    pixels = read_picture(tmp_path / "turned.png").pixels
    assert pixels.dtype == np.uint16
    save(tmp_path / "turned8.png", RGBA, exif=exif(orientation))
    np.testing.assert_array_equal(pixels, deep(read_picture(tmp_path / "turned8.png").pixels))


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_ICC = SRGB[:16] + b"GRAY" + SRGB[20:]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_colour_profile_is_kept_in_every_format(name, tmp_path):
    save(tmp_path / name, RGB, icc_profile=SRGB)
    picture = read_picture(tmp_path / name)
    assert picture.icc == SRGB
    write_image(tmp_path / "out.png", picture.pixels, picture.icc)
    with Image.open(tmp_path / "out.png") as out:
        assert out.info["icc_profile"] == SRGB
        np.testing.assert_array_equal(np.asarray(out), picture.pixels)


@pytest.mark.parametrize(
    ("pixels", "icc", "kept"), [(GRAY, SRGB, False), (GRAY, GRAY_ICC, True), (RGB, GRAY_ICC, False)]
)
def test_a_profile_for_other_channels_is_left_out_with_a_word(pixels, icc, kept, tmp_path, caplog):
    save(tmp_path / "a.png", pixels, icc_profile=icc)
    assert (read_picture(tmp_path / "a.png").icc == icc) is kept
    assert ("colour profile is for other channels" in caplog.text) is not kept


def test_pictures_of_any_size_are_read_with_their_alpha(tmp_path, monkeypatch):
    save(tmp_path / "a.png", RGBA)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_picture(tmp_path / "a.png").pixels.shape == RGBA.shape
    assert Image.MAX_IMAGE_PIXELS == 10


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RGB).resize((320, 240)).save(stream, kind, **options)
    return stream.getvalue()


def jpeg(**options: object) -> bytes:
    return encoded("jpeg", quality=90, **options)


def tiff() -> bytes:
    whole = encoded("tiff", compression="tiff_lzw")
    middle = len(whole) // 2
    return whole[:middle] + bytes(byte ^ 0x55 for byte in whole[middle : middle + 20]) + whole[middle + 20 :]


DAMAGED = {
    "junk.jpg": lambda: jpeg()[:5000] + b"junkjunk\xff\xd0" + jpeg()[5000:],
    "cut.jpg": lambda: jpeg()[:9000] + b"\xff\xd9",
    "cut progressive.jpg": lambda: jpeg(progressive=True)[:9000] + b"\xff\xd9",
    "lost restart.jpg": lambda: jpeg(restart_marker_rows=1).replace(b"\xff\xd3", b"\xff\xd5", 1),
    "changed.tif": tiff,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_once_per_use_cached_or_not(name, folder, caplog, capfd):
    (folder / name).write_bytes(DAMAGED[name]())
    (folder / "good.jpg").write_bytes(jpeg())
    for _ in ("decoded", "cached"):
        notices._given.clear()
        caplog.clear()
        ImageStore.open(ImageSource.folder(folder))
        ImageStore.open(ImageSource.folder(folder))
        (record,) = caplog.records
        assert f"{name}: is damaged (" in record.getMessage()
        assert "good.jpg" not in record.getMessage()
    assert capfd.readouterr().err == ""


def test_what_others_write_to_stderr_meanwhile_is_not_lost(capfd):
    with decoding._decoder_messages() as messages:
        decoding.os.write(2, b"Corrupt JPEG data: bad Huffman code\nfrom another thread\n")
    assert "bad Huffman code" in messages[0]
    assert capfd.readouterr().err == "from another thread\n"


@pytest.mark.parametrize(
    ("others", "counted"),
    [
        (["photo.xmp"], "1 file (1 .xmp)"),
        (["a.MOV", "b.mov", "notes.txt"], "3 files (2 .mov, 1 .txt)"),
        (["README"], "1 file (1 without an ending)"),
        (["photo.CR2", "b.dng"], "2 files (1 .cr2, 1 .dng); to use raw files, develop them"),
        (["a.aae", "b.thm", "c.lrv", "d.gpx"], "4 files (1 .aae, 1 .gpx, 1 .lrv, 1 .thm)"),
    ],
)
def test_what_is_no_photograph_is_left_out_and_counted_in_one_line(others, counted, folder, caplog):
    save(folder / "photo.png", RGB)
    for name in (*others, "Thumbs.db", ".DS_Store"):
        (folder / name).write_text("something else")
    assert list(list_photographs(folder)) == ["photo"]
    assert ImageStore.open(ImageSource.folder(folder)).names == ("photo",)
    (record,) = caplog.records
    assert counted in record.getMessage()


def test_a_folder_without_photographs_says_what_it_holds(folder):
    (folder / "a.nef").touch()
    (folder / "a.xmp").touch()
    with pytest.raises(UserError, match=r"holds no photographs but 2 files \(1 \.nef, 1 \.xmp\); to use raw files"):
        list_photographs(folder)


@pytest.mark.parametrize("name", ["a.nef", "a.CR2", "a.dng", "a.arw"])
def test_a_raw_file_is_not_taken_for_the_thumbnail_in_it(name, tmp_path):
    save(tmp_path / name, RGB, format="tiff")
    with pytest.raises(UserError, match="is a raw file; develop it and save it as PNG or TIFF"):
        read_image(tmp_path / name)


def test_heic_says_what_to_install(folder, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (folder / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=r"is HEIC, .*: pip install pillow-heif"):
        read_image(folder / "phone.HEIC")
    with pytest.raises(UserError, match=r"no photographs but 1 file \(1 \.heic\); to read HEIC: pip install"):
        list_photographs(folder)
    save(folder / "photo.png", RGB)
    assert list(list_photographs(folder)) == ["photo"]
    assert "to read HEIC: pip install pillow-heif" in caplog.text


@pytest.mark.parametrize("name", ["phone.heic", "PHONE.HEIF", "renamed.jpg"])
def test_heic_is_read_by_the_library_where_there_is_one(name, folder, monkeypatch):
    picture = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
    real = importlib.util.find_spec("pillow_heif") is not None
    if real:
        importlib.import_module("pillow_heif").register_heif_opener()
        save(folder / name, picture, format="HEIF")
    else:  # a stand-in that decodes what follows a HEIC header as PNG
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "png")
        (folder / name).write_bytes(b"\0\0\0\x0cftypheic" + stream.getvalue())
        opened = Image.open
        monkeypatch.setattr(Image, "open", lambda file: opened(io.BytesIO(file.getvalue()[12:])))
        monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=lambda: None))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    (file,) = list_photographs(folder).values()
    assert np.abs(read_image(file).pixels.astype(int) - picture).max() <= (6 if real else 0)
    np.testing.assert_array_equal(read_picture(file).pixels, read_image(file).pixels)


def tasks(folder: Path, patch: int) -> SyntheticTasks:
    spec = SyntheticSpec.model_validate({"kind": "synthetic", "scale": 4, "pipeline": [{"op": "downsample"}]})
    return SyntheticTasks("t", spec, {"train": ImageStore.open(ImageSource.folder(folder))}, Episode(2, 1, patch))


@pytest.mark.parametrize("small", [[(24, 60)], [(60, 24), (31, 31)], [(8, 8), (31, 90), (90, 31), (1, 1)]])
def test_photographs_smaller_than_a_patch_are_left_out_and_counted(small, folder, caplog):
    for index in range(2):
        save(folder / f"large{index}.png", np.roll(RGB, index, 0))
    drawn = [tasks(folder, 32).draw(0, index) for index in range(8)]
    for index, (height, width) in enumerate(small):
        write_image(folder / f"a{index}.png", np.zeros((height, width, 3), np.uint8))
    distribution = tasks(folder, 32)
    assert [distribution.draw(0, index) for index in range(8)] == drawn
    assert distribution.build(drawn[0]).support_hr.shape == (2, 3, 32, 32)
    (record,) = caplog.records
    assert f"{len(small)} of {2 + len(small)} photographs are left out, as they are smaller" in record.getMessage()


def test_it_is_an_error_where_no_photograph_is_left(folder):
    save(folder / "a.png", RGB)
    save(folder / "b.png", RGB)
    with pytest.raises(UserError, match="all 2 photographs are smaller than the 64x64 crop; choose") as caught:
        tasks(folder, 64)
    assert len(caught.value.problems) == 1


def test_workers_give_no_notices(caplog, monkeypatch):
    logger = logging.getLogger("metarestore")
    before = logger.level
    try:
        notices.mute()
        notices.notice("said by the driver already")
        assert not caplog.records
    finally:
        logger.setLevel(before)
