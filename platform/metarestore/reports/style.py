"""The style of all figures: a colour-blind safe palette, labels at line ends."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from metarestore.reports.fonts import use_fallback_fonts

Floats = NDArray[np.float64]
P = ParamSpec("P")

WIDTH = 8.0
"""Width of a figure in inches; with text of 9 pt it is readable on a page and, scrolled, on a phone."""
SMALL = 8.0
"""Size of labels and values, in points."""
GREY = "#6e6e6e"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#882255", "#44aa99", "#332288", "#999933")
"""Okabe and Ito (2008), without black and yellow, then Tol's muted scheme (2021)."""

_VARIANTS = {"weighted": "-", "uniform": "--", "inverted": ":", "random": "-."}
"""Line style by variant of an arm `<learner>_<variant>`; the learner determines the colour."""
_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: it can be searched, selected and read aloud
    "svg.hashsalt": "metarestore",  # equal figures give equal bytes
}


@dataclass(frozen=True)
class LineStyle:
    """The line style of an arm or distribution, the same in all figures of a report."""

    colour: str
    dashes: str


@dataclass(frozen=True)
class EndLabel:
    """The label at the right end of a line, and the end point in data units."""

    text: str
    style: LineStyle
    x: float
    y: float


def house_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws a figure in the style of the reports, independent of the user's matplotlib settings."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.style.context(["default", _STYLE]):
            figure = draw(*args, **kwargs)
            # Names are shown literally: a `$` does not start a formula.
            for text in figure.findobj(Text):
                text.set_parse_math(False)
            use_fallback_fonts(figure)
        return figure

    return styled


def arm_styles(names: Sequence[str]) -> dict[str, LineStyle]:
    """Assigns one colour to all arms `<learner>_<variant>` of a learner, and a line style to each variant."""
    families: dict[str, int] = {}
    styles: dict[str, LineStyle] = {}
    for name in names:
        learner, _, variant = name.rpartition("_")
        family = learner if variant in _VARIANTS and learner else name
        index = families.setdefault(family, len(families))
        styles[name] = LineStyle(PALETTE[index % len(PALETTE)], _VARIANTS.get(variant, "-"))
    return styles


def distribution_styles(names: Sequence[str]) -> dict[str, LineStyle]:
    """Assigns a colour to each distribution; if there are more than colours, they repeat with other dashes."""
    dashes = ("-", "--", ":", "-.")
    return {
        name: LineStyle(PALETTE[index % len(PALETTE)], dashes[index // len(PALETTE) % len(dashes)])
        for index, name in enumerate(names)
    }


def smoothed(values: Floats, window: int) -> Floats:
    """Averages values (K,) or (K, N) over a centred window, truncated at the ends; non-finite values are ignored."""
    table = values.reshape(len(values), -1)
    kernel = np.ones(2 * (window // 2) + 1)
    present = np.isfinite(table)
    half = len(kernel) // 2
    padded = np.pad(np.stack([np.where(present, table, 0.0), present], axis=-1), ((half, half), (0, 0), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=0) @ kernel
    with np.errstate(invalid="ignore"):
        means = windows[..., 0] / windows[..., 1]
    return np.asarray(means.reshape(values.shape))


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Moves positions in 0..1 to distances of at least `gap`, with minimal squared displacement."""
    if not positions:
        return []
    order = np.argsort(positions, kind="stable")
    room = np.arange(len(order)) * min(gap, 1.0 / max(len(order) - 1, 1))
    fitted = isotonic_regression(np.clip(np.asarray(positions)[order], 0, 1) - room).x
    placed = np.empty(len(order))
    placed[order] = np.clip(fitted, 0.0, 1.0 - room[-1]) + room
    return [float(value) for value in placed]


def label_ends(axes: Axes, labels: Sequence[EndLabel]) -> None:
    """Draws labels right of the axes without overlap, connected to their line ends; axis limits must be set before."""
    low, high = axes.get_ylim()
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    height = axes.get_position().height * figure.get_figheight() * 72
    ends = [float(np.clip(label.y, low, high)) for label in labels]
    positions = spread([(end - low) / (high - low) for end in ends], 1.3 * SMALL / height)
    for label, end, position in zip(labels, ends, positions, strict=True):
        axes.annotate(
            label.text,
            xy=(label.x, end),
            xytext=(1.05, position),
            textcoords="axes fraction",
            color=label.style.colour,
            fontsize=SMALL,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": label.style.colour,
                "ls": label.style.dashes,
                "lw": 0.9,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 1,
            },
        )


def svg(figure: Figure) -> str:
    """Returns a figure as an SVG element for an HTML page, without XML declaration and metadata."""
    buffer = io.StringIO()
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # Text is not converted to paths; the browser selects the fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def signed(value: float, decimals: int = 2) -> str:
    """Formats a number with its sign; numbers that round to zero get a plus sign."""
    return f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", "−")
