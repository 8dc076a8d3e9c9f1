"""Photographs: what is read, what is refused, and that the cache is never wrong."""

import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zlib
from contextlib import nullcontext
from itertools import combinations

import cv2
import numpy as np
import pytest
from PIL import Image

from metarestore.errors import UserError
from metarestore.tasks import images
from metarestore.tasks.embedded import EMBEDDED, embedded_path
from metarestore.tasks.images import ImageSource, ImageStore, cache_folder, read_image, write_image

HEIGHT, WIDTH = 12, 17


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METARESTORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def noise(seed=0, shape=(HEIGHT, WIDTH, 3), high=256, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, high, shape, dtype)


def fill(folder, count=3):
    for index in range(count):
        write_image(folder / f"photo{index}.png", noise(index))
    return ImageSource.folder(folder)


RGB = noise()
GRAY = RGB[..., 0]
GRAY_RGB = np.repeat(GRAY[..., None], 3, axis=2)
DEEP = noise(high=65536, dtype=np.uint16)
ALPHA = noise(1, (HEIGHT, WIDTH, 1))
DEEP_TO_8 = np.rint(DEEP / 257).astype(np.uint8)
PALETTE = Image.fromarray(RGB).quantize(16)
PALETTE_RGB = np.asarray(PALETTE.convert("RGB"))
BITS = GRAY > 127


def by_pillow(array_or_image, **options):
    picture = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    return lambda path: picture.save(path, **options)


def by_opencv(array):  # Pillow writes no 16-bit colour
    return lambda path: cv2.imwrite(str(path), array)


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return {"exif": exif}


FORMATS = {
    "rgb.png": (by_pillow(RGB), RGB, False),
    "RGB.PNG": (by_pillow(RGB), RGB, False),
    "rgb.bmp": (by_pillow(RGB), RGB, False),
    "rgb.tif": (by_pillow(RGB), RGB, False),
    "rgb.TIFF": (by_pillow(RGB, format="tiff"), RGB, False),
    "rgb.webp": (by_pillow(RGB, lossless=True), RGB, False),
    "gray.png": (by_pillow(GRAY), GRAY_RGB, True),
    "gray.bmp": (by_pillow(GRAY), GRAY_RGB, True),
    "gray.tif": (by_pillow(GRAY), GRAY_RGB, True),
    "equal_channels.png": (by_pillow(GRAY_RGB), GRAY_RGB, False),
    "one_bit.png": (by_pillow(BITS), 255 * np.repeat(BITS[..., None], 3, axis=2).astype(np.uint8), True),
    "rgba.png": (by_pillow(np.dstack([RGB, ALPHA])), RGB, False),
    "rgba.webp": (by_pillow(np.dstack([RGB, ALPHA]), lossless=True, exact=True), RGB, False),
    "gray16.png": (by_opencv(DEEP[..., 0]), np.repeat(DEEP_TO_8[..., :1], 3, axis=2), True),
    "rgb16.png": (by_opencv(DEEP[..., ::-1]), DEEP_TO_8, False),
    "rgb16.tif": (by_opencv(DEEP[..., ::-1]), DEEP_TO_8, False),
    "rgba16.png": (by_opencv(np.dstack([DEEP[..., ::-1], DEEP[..., :1]])), DEEP_TO_8, False),
    "palette.png": (by_pillow(PALETTE), PALETTE_RGB, False),
    "palette.bmp": (by_pillow(PALETTE), PALETTE_RGB, False),
    "turned.png": (by_pillow(RGB, **orientation(6)), np.rot90(RGB, -1), False),
    "upside_down.png": (by_pillow(RGB, **orientation(3)), np.rot90(RGB, 2), False),
}


@pytest.mark.parametrize("name", FORMATS)
def test_lossless_formats_are_read_exactly(tmp_path, name):
    write, expected, gray = FORMATS[name]
    write(tmp_path / name)
    photograph = read_image(tmp_path / name)
    assert photograph.pixels.dtype == np.uint8
    np.testing.assert_array_equal(photograph.pixels, expected)
    assert photograph.gray is gray


@pytest.mark.parametrize("name", ["photo.jpg", "photo.JPEG"])
@pytest.mark.parametrize(
    ("pixels", "gray"), [(np.full_like(RGB, (200, 100, 50)), False), (np.full_like(GRAY, 77), True)]
)
def test_jpeg_keeps_channel_order_and_gray(tmp_path, name, pixels, gray):
    Image.fromarray(pixels).save(tmp_path / name, quality=100)
    photograph = read_image(tmp_path / name)
    expected = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    assert np.abs(photograph.pixels.astype(int) - expected).max() <= 2
    assert photograph.gray is gray


def test_jpeg_is_turned_upright(tmp_path):
    half_dark = np.zeros((32, 64, 3), np.uint8)
    half_dark[:, 32:] = 255  # the right half is bright; turned a quarter clockwise, the lower half is
    Image.fromarray(half_dark).save(tmp_path / "turned.jpg", quality=100, **orientation(6))
    pixels = read_image(tmp_path / "turned.jpg").pixels
    assert pixels.shape == (64, 32, 3)
    assert pixels[:24].max() < 50
    assert pixels[40:].min() > 200


@pytest.mark.parametrize("pixels", [RGB, GRAY])
def test_what_is_written_is_read_back(tmp_path, pixels):
    path = tmp_path / "größe 図.png"
    write_image(path, pixels)
    photograph = read_image(path)
    np.testing.assert_array_equal(photograph.pixels, RGB if pixels.ndim == 3 else GRAY_RGB)
    assert photograph.gray is (pixels.ndim == 2)


def test_write_errors_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"out\.jpg: images are written as PNG"):
        write_image(tmp_path / "out.jpg", RGB)
    write_image(tmp_path / "new" / "folder" / "out.png", RGB)  # missing folders are created
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "folder" / "out.png").pixels, RGB)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/out\.png: cannot be written \((Not a directory|File exists)\)"):
        write_image(tmp_path / "file" / "out.png", RGB)
    with pytest.raises(ValueError, match=r"got float64 \(12, 17, 3\)"):
        write_image(tmp_path / "out.png", RGB / 255)


def test_names_are_sorted_and_drop_the_suffix_unless_ambiguous(folder):
    for name in ("b.png", "a.png", "a.bmp", "C.PNG"):
        by_pillow(RGB)(folder / name)
    assert ImageStore.open(ImageSource.folder(folder)).names == ("C", "a.bmp", "a.png", "b")
    by_pillow(RGB)(folder / "a.png.png")  # its stem is another file's full name
    assert ImageStore.open(ImageSource.folder(folder)).names == ("C.PNG", "a.bmp", "a.png", "a.png.png", "b.png")


def test_hidden_files_and_subfolders_are_passed_over(folder):
    source = fill(folder, 1)
    for name in (".DS_Store", "._photo0.png", "Thumbs.db", "desktop.ini"):
        (folder / name).write_text("hidden")
    (folder / "more.png").mkdir()
    assert ImageStore.open(source).names == ("photo0",)


def test_all_bad_files_are_reported_together(folder):
    fill(folder)
    (folder / "text.png").write_text("no image")
    (folder / "empty.jpg").touch()
    whole = (folder / "photo0.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    cv2.imwrite(str(folder / "float.tif"), RGB.astype(np.float32))
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(UserError) as caught:
        ImageStore.open(ImageSource.folder(folder))
    problems = sorted(problem.split("photos/", 1)[1] for problem in caught.value.problems)
    patterns = [
        r"empty\.jpg: damaged, or not PNG, .* convert it or remove it$",
        r"float\.tif: has float32 pixels; convert it to 8 or 16 bits",
        r"gone\.png: cannot be read \(No such file or directory\)",
        r"half\.png: damaged",
        r"text\.png: damaged",
    ]
    assert len(problems) == len(patterns)
    for problem, pattern in zip(problems, patterns, strict=True):
        assert re.match(pattern, problem)


def test_undecodable_files_alone_are_reported_together(folder, cache):
    fill(folder)
    for name in ("one.png", "two.png"):
        (folder / name).write_text("no image")
    with pytest.raises(UserError, match=r"two\.png: damaged") as caught:
        ImageStore.open(ImageSource.folder(folder))
    assert len(caught.value.problems) == 2
    assert list(cache.iterdir()) == []


def test_folder_errors(tmp_path, folder):
    with pytest.raises(UserError, match="absent: no such folder"):
        ImageStore.open(ImageSource.folder(tmp_path / "absent"))
    with pytest.raises(UserError, match="photos: holds no photographs; put PNG"):
        ImageStore.open(ImageSource.folder(folder))
    (tmp_path / "file.png").touch()
    with pytest.raises(UserError, match="is a file; give the folder"):
        ImageStore.open(ImageSource.folder(tmp_path / "file.png"))


def test_relative_folder_is_completed_at_once(folder, monkeypatch):
    fill(folder)
    monkeypatch.chdir(folder.parent)
    source = ImageSource.folder("photos")
    monkeypatch.chdir("/")
    assert len(ImageStore.open(source).names) == 3


def test_store_returns_what_is_in_the_files(folder):
    for name in ("rgb.bmp", "gray.tif", "rgb16.png", "turned.png"):
        FORMATS[name][0](folder / name)
    store = ImageStore.open(ImageSource.folder(folder))
    for name in ("rgb.bmp", "gray.tif", "rgb16.png", "turned.png"):
        _, expected, gray = FORMATS[name]
        stem = name.split(".")[0]
        np.testing.assert_array_equal(store.image(stem), expected)
        assert store.size(stem) == expected.shape[:2]
        assert store.is_gray(stem) is gray


def test_images_are_read_only_views_and_patches_are_copies(folder):
    store = ImageStore.open(fill(folder))
    image = store.image("photo1")
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1
    assert np.shares_memory(image, store.image("photo1"))
    patch = store.patch("photo1", 3, 5, 4, 6)
    np.testing.assert_array_equal(patch, noise(1)[3:7, 5:11])
    patch[:] = 0
    np.testing.assert_array_equal(store.image("photo1"), noise(1))


@pytest.mark.parametrize(
    "box", [(-1, 0, 4, 4), (0, -1, 4, 4), (HEIGHT - 3, 0, 4, 4), (0, WIDTH - 3, 4, 4), (2, 2, -1, 4)]
)
def test_patch_outside_is_refused(folder, box):
    store = ImageStore.open(fill(folder))
    with pytest.raises(ValueError, match="is outside 'photo0'"):
        store.patch("photo0", *box)


def test_unknown_name_is_the_users_error(folder):
    with pytest.raises(UserError, match="holds no photograph 'sea'"):
        ImageStore.open(fill(folder)).size("sea")


def test_require_size_names_every_small_photograph(folder):
    write_image(folder / "large.png", noise(0, (40, 40, 3)))
    write_image(folder / "low.png", noise(0, (20, 40, 3)))
    write_image(folder / "narrow.png", noise(0, (40, 31, 3)))
    store = ImageStore.open(ImageSource.folder(folder))
    store.require_size(20, 31)
    with pytest.raises(UserError) as caught:
        store.require_size(32, 32)
    low, narrow = caught.value.problems
    assert re.search(r"'low' is 20x40 \(height x width\), smaller than the 32x32 crop; remove it or choose", low)
    assert "'narrow' is 40x31" in narrow


def test_photographs_are_decoded_once(folder, monkeypatch):
    source = fill(folder)
    first = ImageStore.open(source)
    monkeypatch.setattr(images, "read_image", lambda path: pytest.fail(f"{path} was decoded again"))
    second = ImageStore.open(source)
    assert second.content == first.content
    np.testing.assert_array_equal(second.image("photo2"), noise(2))


def truncate_pixels(pixels, index):
    pixels.write_bytes(pixels.read_bytes()[:-1])


def lose_pixels(pixels, index):
    pixels.unlink()


def truncate_index(pixels, index):
    index.write_bytes(index.read_bytes()[:-20])


def empty_index(pixels, index):
    index.write_text("{}")


def binary_index(pixels, index):
    index.write_bytes(b"\xff\x00")


@pytest.mark.parametrize("damage", [truncate_pixels, lose_pixels, truncate_index, empty_index, binary_index])
def test_damaged_cache_is_rebuilt(folder, cache, damage):
    source = fill(folder)
    content = ImageStore.open(source).content
    damage(next(cache.glob("*.u8")), next(cache.glob("*.json")))
    store = ImageStore.open(source)
    assert store.content == content
    for index in range(3):
        np.testing.assert_array_equal(store.image(f"photo{index}"), noise(index))


def test_changed_added_and_removed_files_are_noticed(folder):
    source = fill(folder)
    contents = [ImageStore.open(source).content]
    Image.fromarray(noise(9)).save(folder / "photo1.png")
    os.utime(folder / "photo1.png", ns=(1, 1))
    contents.append(ImageStore.open(source).content)
    np.testing.assert_array_equal(ImageStore.open(source).image("photo1"), noise(9))
    write_image(folder / "photo3.png", noise(3))
    contents.append(ImageStore.open(source).content)
    (folder / "photo0.png").rename(folder / "other.png")
    contents.append(ImageStore.open(source).content)
    assert len(set(contents)) == len(contents)


def test_content_depends_on_the_photographs_not_on_their_place(folder, tmp_path):
    source = fill(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert ImageStore.open(ImageSource.folder(tmp_path / "copy")).content == ImageStore.open(source).content


def test_unwritable_cache_names_the_variable(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("METARESTORE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        UserError, match=r"cannot write the cache of .*photos .*; set METARESTORE_CACHE to a writable folder"
    ):
        ImageStore.open(fill(folder))


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("METARESTORE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "metarestore"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "metarestore"


def test_a_build_inside_a_build_leaves_one_whole_cache(folder, cache, monkeypatch):
    source = fill(folder)
    decode, inner = images.read_image, []

    def interrupted(path):  # while the first process decodes, a second one builds the same cache from start to end
        if not inner:
            inner.append(None)
            inner[0] = ImageStore.open(source)
        return decode(path)

    monkeypatch.setattr(images, "read_image", interrupted)
    outer = ImageStore.open(source)
    assert outer.content == inner[0].content
    for store in (outer, inner[0]):
        np.testing.assert_array_equal(store.image("photo2"), noise(2))
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".u8"]


OPEN_TOGETHER = """
import sys
from metarestore.tasks.images import ImageSource, ImageStore
print("ready", flush=True)
sys.stdin.readline()
store = ImageStore.open(ImageSource.folder(sys.argv[1]))
print(store.content, int(store.image(store.names[-1]).sum()))
"""


def test_two_processes_build_at_once(folder, cache):
    source = fill(folder, 8)
    command = [sys.executable, "-c", OPEN_TOGETHER, str(folder)]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    first, second = (worker.communicate(timeout=60)[0].split() for worker in workers)
    assert [worker.returncode for worker in workers] == [0, 0]
    assert first == second == [ImageStore.open(source).content, str(int(noise(7).sum()))]
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".u8"]


def test_pickled_store_carries_no_pixels_and_reopens_the_map(folder, monkeypatch):
    for index in range(3):
        write_image(folder / f"photo{index}.png", noise(index, (64, 64, 3)))
    store = ImageStore.open(ImageSource.folder(folder))
    store.image("photo0")
    sent = pickle.dumps(store)
    assert len(sent) < 64 * 64
    monkeypatch.setattr(images, "read_image", lambda path: pytest.fail(f"{path} was decoded again"))
    received = pickle.loads(sent)
    assert (received.source, received.names, received.content) == (store.source, store.names, store.content)
    np.testing.assert_array_equal(received.image("photo1"), store.image("photo1"))


def test_node_without_the_cache_builds_it(folder, tmp_path, monkeypatch):
    sent = pickle.dumps(ImageStore.open(fill(folder)))
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))  # copied to the other node, so that even the key differs
    monkeypatch.setenv("METARESTORE_CACHE", str(tmp_path / "other_node"))
    np.testing.assert_array_equal(pickle.loads(sent).image("photo2"), noise(2))


def test_node_with_other_photographs_is_refused(folder, tmp_path, monkeypatch):
    sent = pickle.dumps(ImageStore.open(fill(folder)))
    write_image(folder / "photo1.png", noise(9))
    monkeypatch.setenv("METARESTORE_CACHE", str(tmp_path / "other_node"))
    with pytest.raises(UserError, match="differ from those at the start of the run"):
        pickle.loads(sent).image("photo2")


def test_splits_never_mix():
    for one, other in combinations(EMBEDDED.values(), 2):
        assert not set(one) & set(other)
        assert not {embedded_path(name).read_bytes() for name in one} & {
            embedded_path(name).read_bytes() for name in other
        }


@pytest.mark.parametrize("split", EMBEDDED)
def test_embedded_split_opens(split):
    store = ImageStore.open(ImageSource.embedded(split))
    assert store.names == tuple(sorted(EMBEDDED[split]))
    store.require_size(128, 128)
    for name in store.names:
        np.testing.assert_array_equal(store.image(name), read_image(embedded_path(name)).pixels)
    assert pickle.loads(pickle.dumps(store.source)) == store.source


def test_unknown_embedded_names():
    with pytest.raises(UserError, match="unknown embedded split 'valid'; write one of train, validation, test"):
        ImageSource.embedded("valid")
    with pytest.raises(UserError, match="'sea' is not in the installed scikit-image; reinstall"):
        embedded_path("sea")


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def stating(suffix, width, height):
    """Returns an image file whose header states that size; there are no pixels to match."""
    if suffix == "png":
        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + data
    if suffix == "bmp":
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 2835, 2835, 0, 0)
        return b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + header + bytes(900)
    _, small = cv2.imencode(".jpg", np.zeros((16, 16), np.uint8))
    data, start = small.tobytes(), small.tobytes().index(b"\xff\xc0")
    return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg"])
def test_an_image_beyond_the_decoders_limit_is_not_called_damaged(tmp_path, suffix):
    path = tmp_path / f"large.{suffix}"
    path.write_bytes(stating(suffix, 40_000, 30_000))
    with pytest.raises(UserError, match=r"width of 40000 and a height of 30000 .*above 1073741824 .*PIXELS=1200000000"):
        read_image(path)
    path.write_bytes(stating(suffix, 400, 300))
    with pytest.raises(UserError, match="damaged") if suffix != "jpg" else nullcontext():
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_a_side_beyond_the_decoders_limit_is_named(tmp_path, suffix):
    path = tmp_path / f"long.{suffix}"
    path.write_bytes(stating(suffix, 2_000_000, 3))
    with pytest.raises(UserError, match=r"width of 2000000 .*sides above 1000000 are not decoded; cut it"):
        read_image(path)


@pytest.mark.parametrize("links", [{"a.png": "a.png"}, {"a.png": "b.png", "b.png": "a.png"}, {"a.png": "c/a.png"}])
def test_a_loop_of_links_is_named(tmp_path, links):
    (tmp_path / "c").symlink_to(tmp_path)
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    with pytest.raises(UserError, match=r"a\.png: cannot be read .*links form a loop; remove one"):
        read_image(tmp_path / "a.png")
    (tmp_path / "c").unlink()
    with pytest.raises(UserError, match=r"\.png: cannot be read"):
        ImageStore.open(ImageSource.folder(tmp_path))
