"""Tables and pictures of an adaptation to a camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from metarestore.camera.run import Outcome
from metarestore.evaluation.statistics import mean_and_error
from metarestore.models.checkpoint import load_model
from metarestore.models.restore import image_restorer
from metarestore.tasks.pair_files import PairFiles
from metarestore.tasks.photographs import read_image, write_image


def left_out_table(outcome: Outcome) -> Table:
    """Returns the comparison of the ways on the shots."""
    count = len(next(iter(outcome.left_out.values())))
    table = Table(title=f"On {count} shots, each left out in turn", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("dB over bicubic", justify="right")
    table.add_column("±", justify="right")
    for name, gains in outcome.left_out.items():
        estimate = mean_and_error(gains)
        chosen = name == outcome.way.name
        style = "bold" if chosen else None
        table.add_row(name, f"{estimate.mean:+.2f}", f"{estimate.standard_error:.2f}", style=style)
    return table


def write_samples(outcome: Outcome, pairs: Sequence[PairFiles], folder: Path) -> list[Path]:
    """Restores the LR image of pairs that were not learned from.

    Raises:
        UserError: A file cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    restore, written = image_restorer(load_model(outcome.network)), []
    for pair in pairs:
        path = folder / f"{pair.name}.png"
        write_image(path, restore(read_image(pair.lr).pixels))
        written.append(path)
    return written
