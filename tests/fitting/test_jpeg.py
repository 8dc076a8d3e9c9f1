import cv2
import numpy as np
import pytest
from PIL import Image

from metarestore.fitting.jpeg import JpegFit, ijg_table, jpeg_of_file, jpeg_of_pixels

BICUBIC = {"op": "downsample", "method": "bicubic"}


def compressed(make_pair, name, quality, **more):
    return make_pair(name, 4, BICUBIC, {"op": "jpeg", "quality": quality, "codec": "libjpeg", **more}, side=512).lr


@pytest.mark.parametrize("quality", [15, 40, 60, 75, 90, 96])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_the_quality_of_decoded_pixels_is_found(make_pair, name, quality):
    found = jpeg_of_pixels(compressed(make_pair, name, quality))
    assert found.quality == pytest.approx(quality, abs=1)
    assert 0.5 < found.confidence <= 1


def test_it_is_found_on_any_grid_and_subsampling(make_pair):
    lr = compressed(make_pair, "coffee", 70, subsampling=444)
    assert jpeg_of_pixels(lr[3:, 6:]).quality == 70


@pytest.mark.parametrize("noise", [0, 2])
@pytest.mark.parametrize("name", ["astronaut", "camera", "rocket"])
def test_no_jpeg_is_found_where_there_is_none(make_pair, name, noise):
    lr = make_pair(name, 4, BICUBIC, {"op": "gaussian_noise", "sigma": noise}).lr
    assert jpeg_of_pixels(lr) == JpegFit(None, 0.0)
    assert jpeg_of_pixels(np.zeros((64, 64, 3))).quality is None


@pytest.mark.parametrize(("quality", "subsampling"), [(30, "4:2:0"), (88, "4:4:4"), (95, "4:2:2")])
def test_a_jpeg_file_states_its_own(tmp_path, make_pair, quality, subsampling):
    pixels = make_pair("coffee", 4, BICUBIC).lr.astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    assert jpeg_of_file(tmp_path / "a.jpg") == JpegFit(quality, 1.0, int(subsampling.replace(":", "")))


def test_files_of_other_kinds_state_nothing(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    assert jpeg_of_file(tmp_path / "a.png") is None
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((40, 40), np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 81])
    assert jpeg_of_file(tmp_path / "a.jpg") == JpegFit(81, 1.0, None)


def test_tables_are_those_of_libjpeg(tmp_path):
    for quality in (1, 12, 50, 77, 100):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", quality=quality)
        with Image.open(tmp_path / "a.jpg") as image:
            np.testing.assert_array_equal(np.reshape(image.quantization[0], (8, 8)), ijg_table(quality))
