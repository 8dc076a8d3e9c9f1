"""The best weighted arm of each target against the controls, from the finished cells of grids; trains nothing.

Every weighted arm is in the race, so its lead over a control is a little too good: the winner was chosen on the
photographs that it is measured on. Two intervals of 95% are given: of a bootstrap over trainings and photographs, which
three seeds make too narrow, and the wider one of Student's t with crossed random effects.

Run:     python experiments/studies/relation_claims.py runs/relations/cameras runs/relations/synthetic [--before]
         python experiments/studies/relation_claims.py runs/relations/longer --pair response uniform
         (--pair may be given several times)
Results: experiments/results/relation_ablation.md
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarestore.evaluation.statistics import bootstrap_difference, crossed_difference

AGAINST = (
    *("uniform_balanced", "uniform", "random", "inverted", "expert", "only_bicubic", "target_only", "fitted"),
    *("uniform_shots", "fitted_shots", "uniform_fitted", "uniform_fitted_shots"),
)

SINGLE = "only_"
"""How arms of one auxiliary distribution begin."""

Floats = NDArray[np.float64]


def figures(folder: Path, stage: str) -> dict[str, dict[str, Floats]]:
    """Returns PSNR-Y by group (target and further axes) and arm, (seeds, photographs).

    `bicubic` is an arm; cameras are cut out of the names of arms.
    """
    rows: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted(folder.glob("cells/*/result.json")):
        cell = json.loads(path.read_text())
        labels = dict(cell["labels"])
        target, seed = labels.pop("graph.target"), labels.pop("seed")
        group = ", ".join([target, *(f"{key.rpartition('.')[2]} {value}" for key, value in labels.items())])
        arm = cell["arm"].replace(f"_{target}", "")
        rows[group][arm][seed] = cell[stage]["psnr_y"]
        rows[group]["bicubic"][seed] = cell["bicubic"]["psnr_y"]
    found = {}
    for group, arms in rows.items():
        # Of a grid that still runs, the seeds that all arms have, and the arms that have all of them.
        most = max(len(by_seed) for by_seed in arms.values())
        whole = {arm: by_seed for arm, by_seed in arms.items() if len(by_seed) == most}
        seeds = sorted(set.intersection(*(set(by_seed) for by_seed in whole.values())))
        found[group] = {arm: np.asarray([by_seed[seed] for seed in seeds]) for arm, by_seed in whole.items()}
    return found


def line(name: str, differences: Floats) -> str:
    """Writes a difference with its two intervals."""
    narrow, wide = bootstrap_difference(differences), crossed_difference(differences)
    return (
        f"| {name} | {wide.mean:+.3f} | {narrow.low:+.3f} to {narrow.high:+.3f} | {wide.low:+.3f} to {wide.high:+.3f} |"
    )


def report(arms: dict[str, Floats], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Compares pairs of arms, or the best weighted arm with the controls where no pairs are given."""
    head = ["", "| | dB | bootstrap | crossed t |", "| :-- | --: | --: | --: |"]
    if pairs:
        known = [(one, other) for one, other in pairs if one in arms and other in arms]
        return [*head, *(line(f"{one} − {other}", arms[one] - arms[other]) for one, other in known)]
    weighted = [arm for arm in arms if arm not in ("bicubic", *AGAINST) and not arm.startswith(SINGLE)]
    if not weighted:  # not run yet
        return []
    best = max(weighted, key=lambda arm: float(arms[arm].mean()))
    gain = float((arms[best] - arms["bicubic"]).mean())
    others = [other for other in ("bicubic", *AGAINST) if other in arms]
    return [
        f"{best} is the best weighted arm, {gain:+.2f} dB over bicubic",
        *head,
        *(line(f"{best} − {other}", arms[best] - arms[other]) for other in others),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grids", nargs="+", type=Path)
    parser.add_argument("--before", action="store_true", help="before adaptation to the shots")
    parser.add_argument("--pair", nargs=2, action="append", default=[], metavar="ARM", help="compares these two alone")
    options = parser.parse_args()
    for grid in options.grids:
        for group, arms in figures(grid, "before" if options.before else "after").items():
            seeds, photographs = arms["bicubic"].shape
            print(f"\n{group} ({seeds} seeds, {photographs} photographs)")
            print("\n".join(report(arms, options.pair)))
