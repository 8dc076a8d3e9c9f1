"""What formats store of restored rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarestore.restoration.formats import FORMATS, Layout, converted, stored_as


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_blended_with_white_where_a_format_has_none(dtype: Any, channels: int) -> None:
    peak = np.iinfo(dtype).max
    rows = np.zeros((1, 3, channels), dtype)
    rows[0, :, -1] = (0, peak, peak // 2)  # black: transparent, opaque, half
    layout, remarks = stored_as(Layout(1, 3, channels, np.dtype(dtype)), FORMATS["jpeg"], Path("photo.png"))
    assert any("transparent parts become white" in remark for remark in remarks)
    levels = converted(rows, layout)
    assert levels.shape == (1, 3, channels - 1)
    assert levels.dtype == np.uint8
    np.testing.assert_allclose(levels[0, :, 0], [255, 0, 128], atol=1)


def test_gray_and_alpha_become_equal_channels_and_alpha() -> None:
    rows = np.array([[[10, 200]]], np.uint8)
    layout, _ = stored_as(Layout(1, 1, 2, np.dtype(np.uint8)), FORMATS["webp"], Path("photo.png"))
    np.testing.assert_array_equal(converted(rows, layout), [[[10, 10, 10, 200]]])


def test_a_lossless_format_changes_nothing() -> None:
    rows = np.arange(8, dtype=np.uint16).reshape(1, 2, 4) * 1000
    for name in ("png", "tiff"):
        layout, remarks = stored_as(Layout(1, 2, 4, np.dtype(np.uint16)), FORMATS[name], Path("photo.png"))
        assert remarks == []
        np.testing.assert_array_equal(converted(rows, layout), rows)
