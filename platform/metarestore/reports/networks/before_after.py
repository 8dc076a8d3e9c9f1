"""A sheet that shows crops of a photograph, enlarged bicubically and restored."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from metarestore.reports.pictures import Pixels, pixel_figure, place_image, place_text
from metarestore.reports.style import house_style

_TILE, _GAP, _TOP, _NOTE = 384, 12, 52, 22


@house_style
def before_after_sheet(crops: Sequence[tuple[str, Pixels, Pixels]], title: str) -> Figure:
    """Draws one row for each crop: on the left enlarged bicubically, on the right restored.

    Args:
        crops: A label, and two 8-bit RGB images (H, W, 3) of equal size.
        title: Title of the sheet.
    """
    heights = [_fitted(after)[0] for _, _, after in crops]
    figure = pixel_figure(2 * _TILE + 3 * _GAP, _TOP + sum(heights) + len(crops) * (_NOTE + _GAP))
    place_text(figure, title, _GAP, 10, size=10, bold=True)
    for column, text in enumerate(("bicubic", "restored")):
        place_text(figure, text, _GAP + column * (_TILE + _GAP), 32, size=8, grey=True)
    top = _TOP
    for (label, *pictures), high in zip(crops, heights, strict=True):
        for column, picture in enumerate(pictures):
            height, width = _fitted(picture)
            place_image(figure, picture, _GAP + column * (_TILE + _GAP), top, width, height)
        place_text(figure, label, _GAP, top + high + 4, size=8, grey=True)
        top += high + _NOTE + _GAP
    return figure


def _fitted(image: Pixels) -> tuple[int, int]:
    """Returns height and width of an image in a tile: the largest whole multiple that fits, at least its own size."""
    factor = max(_TILE // max(image.shape[:2]), 1)
    return image.shape[0] * factor, image.shape[1] * factor
