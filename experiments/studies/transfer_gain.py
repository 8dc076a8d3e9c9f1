"""Do relations predict transfer? Each estimator's relations against the measured gain of each source alone.

The measured gain of a source is what a network that was trained on it alone, at full length, gains over bicubic
upscaling after adapting to the five shots, on the test photographs; the mean over the trainings of several seeds. The
grids `cameras` and `synthetic` of experiments/studies/relation_ablation.py hold both; this script trains nothing.

Run:     python experiments/studies/transfer_gain.py runs/relations/cameras runs/relations/synthetic --out FOLDER
Results: experiments/results/transfer_gain.md
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from metarestore.reports.graph.transfer import transfer_scatter
from metarestore.reports.pictures import save_png

SINGLE = "only_"
ESTIMATORS = (
    "expert",
    "response",
    "identification",
    "gradient",
    "descriptor",
    "learned_frozen",
    "learned_joint",
    "learned_without_memory",
    "learned_without_messages",
    "transfer",
    "random",
)

Floats = NDArray[np.float64]


def cells(folder: Path) -> list[dict[str, Any]]:
    """Reads the finished cells of a grid."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("cells/*/result.json"))]


def gains(cell: dict[str, Any], stage: str) -> float:
    """Returns the mean gain of a cell over bicubic upscaling, in dB, `before` or `after` adaptation."""
    return float(np.mean(np.subtract(cell[stage]["psnr_y"], cell["bicubic"]["psnr_y"])))


def measured(found: list[dict[str, Any]], target: str, stage: str) -> tuple[tuple[str, ...], Floats]:
    """Returns the sources and the gain of each with each seed, (N, seeds)."""
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for cell in found:
        if cell["arm"].startswith(SINGLE) and cell["labels"]["graph.target"] == target:
            rows[cell["arm"].removeprefix(SINGLE)][cell["labels"]["seed"]] = gains(cell, stage)
    names = tuple(sorted(rows))
    seeds = sorted(set.intersection(*(set(row) for row in rows.values())))
    return names, np.asarray([[rows[name][seed] for seed in seeds] for name in names])


def predicted(found: list[dict[str, Any]], target: str, arm: str, names: tuple[str, ...]) -> Floats | None:
    """Returns the relations that an arm's estimator gave with each seed, (N, seeds)."""
    chosen = [cell for cell in found if cell["arm"] == arm and cell["labels"]["graph.target"] == target]
    if not chosen:
        return None
    return np.asarray([[cell["relations"][name] for cell in chosen] for name in names])


def rank_correlation(a: Floats, b: Floats) -> float:
    """Returns Spearman's rank correlation."""
    return float(spearmanr(a, b).statistic)


def agreement(rows: Floats) -> float:
    """Returns how far seeds agree: the mean rank correlation of the gains of one with the mean of the others."""
    if rows.shape[1] < 2:
        return float("nan")
    return float(
        np.mean([rank_correlation(rows[:, k], np.delete(rows, k, axis=1).mean(axis=1)) for k in range(rows.shape[1])])
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grids", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    everything = {grid: cells(grid) for grid in options.grids}
    lines, panels = [], defaultdict(dict)
    for stage in ("after", "before"):
        targets = {
            target: found
            for found in everything.values()
            for target in sorted({cell["labels"]["graph.target"] for cell in found})
        }
        head = ["estimator", *targets, "mean"]
        lines += [f"\nGain {stage} adaptation:\n", f"| {' | '.join(head)} |", "| :-- |" + " --: |" * (len(head) - 1)]
        truth = {target: measured(found, target, stage) for target, found in targets.items()}
        for arm in ESTIMATORS:
            row = []
            for target, found in targets.items():
                names, rows = truth[target]
                relations = predicted(found, target, arm, names)
                if relations is None:
                    row.append(float("nan"))
                    continue
                row.append(rank_correlation(relations.mean(axis=1), rows.mean(axis=1)))
                if stage == "after":
                    panels[arm][target] = (relations.mean(axis=1), rows.mean(axis=1), names)
            lines.append(f"| {arm} | " + " | ".join(f"{value:+.2f}" for value in (*row, np.mean(row))) + " |")
        ceiling = [agreement(rows) for _, rows in truth.values()]
        lines.append("| *one seed's gains* | " + " | ".join(f"{v:+.2f}" for v in (*ceiling, np.mean(ceiling))) + " |")
        for target, (names, rows) in truth.items():
            order = np.argsort(-rows.mean(axis=1))
            listed = ", ".join(f"{names[i]} {rows[i].mean():+.2f}" for i in order)
            lines.append(f"\n{target}, dB over bicubic: {listed}.")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "transfer_gain.md").write_text("\n".join(lines) + "\n")
    save_png(transfer_scatter(panels), options.out / "transfer_gain.png")
    print("\n".join(lines))
