"""What are KDSR's descriptors worth? Families by nearest neighbours, strengths by a linear map, content by neither.

Needs the trainings of `kdsr_stages.py`. The data are not part of this repository: DATA needs valid/ with photographs.

Run:     python experiments/studies/kdsr_descriptors.py DATA --model runs/kdsr_mixed/seed0/student
Results: experiments/results/kdsr_descriptors.md
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarestore.config.model import KDSRSpec
from metarestore.descriptors.describe import Description, Item, describe_draw, open_tasks
from metarestore.descriptors.quality import Quality, descriptor_quality
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model
from metarestore.models.kdsr import KDSR
from metarestore.models.network import Network
from metarestore.project import Project
from metarestore.reports.networks.descriptors import descriptor_map
from metarestore.reports.pictures import save_png
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.workspace.process import prepare_process

FAMILIES = (
    *("bicubic", "blur_aniso", "blur_iso_mild", "blur_iso_wide", "blur_jpeg", "blur_noise", "jpeg"),
    *("noise_gaussian", "noise_jpeg", "noise_poisson"),
)
"""The auxiliary distributions of the catalogue's graph."""
ROUND = ("blur_iso_mild", "blur_iso_wide")
"""Families whose width of blur is predicted: round blurs."""
PATCHES, PATCH, SEED = 4, 256, 20_000
"""A seed of its own: no draw of a training."""


@dataclass(frozen=True)
class Row:
    """The descriptor of one patch, and what is known of it."""

    family: str
    task: int
    photograph: str
    parameters: dict[str, float]
    descriptor: NDArray[np.float64]


def described(network: KDSR, images: ImageStore, draws: int, patch: int) -> list[Row]:
    """Describes patches of unseen photographs under draws of every family."""
    rows = []
    for family in FAMILIES:
        tasks = open_tasks(family, Project(Path.cwd()).task(family, scale=4), images, PATCHES, patch)
        for index in range(draws):
            draw = tasks.draw(SEED, index)
            found = describe_draw(network, tasks, draw).double().numpy()
            parameters = {k: float(v) for k, v in draw.parameters().items() if isinstance(v, int | float)}
            rows += [
                Row(family, index, ref.image, parameters, vector)
                for ref, vector in zip(draw.support, found, strict=True)
            ]
    return rows


def quality(rows: Sequence[Row]) -> Quality:
    """Judges descriptors of single patches."""
    values = {
        "log of the blur's sigma": [
            np.log(row.parameters["gaussian_blur.sigma"]) if row.family in ROUND else np.nan for row in rows
        ],
        "sigma of white noise": [
            row.parameters["gaussian_noise.sigma"] if row.family == "noise_gaussian" else np.nan for row in rows
        ],
    }
    families, photographs = [row.family for row in rows], [row.photograph for row in rows]
    return descriptor_quality([row.descriptor for row in rows], families, values, photographs, [r.task for r in rows])


def by_task(rows: Sequence[Row]) -> list[Description]:
    """Sums up the patches of each task."""
    groups = []
    for family in FAMILIES:
        items = []
        for index in sorted({row.task for row in rows if row.family == family}):
            own = [row for row in rows if (row.family, row.task) == (family, index)]
            vectors = np.stack([row.descriptor for row in own])
            names = tuple(row.photograph for row in own)
            items.append(Item(str(index), own[0].parameters, names, vectors.mean(axis=0), vectors.std(axis=0, ddof=1)))
        groups.append(Description(family, "task", tuple(items)))
    return groups


def confusions(rows: Sequence[Row], most: int = 5) -> str:
    """Names the pairs of families whose means lie closest, measured by the spread of single patches within them."""
    stacks = {family: np.stack([r.descriptor for r in rows if r.family == family]) for family in FAMILIES}
    scale = np.sqrt(np.mean([stack.var(axis=0) for stack in stacks.values()], axis=0))
    pairs = [(a, b) for k, a in enumerate(FAMILIES) for b in FAMILIES[k + 1 :]]
    gap = {(a, b): float(np.linalg.norm((stacks[a].mean(0) - stacks[b].mean(0)) / scale)) for a, b in pairs}
    return ", ".join(f"{a} and {b} ({gap[a, b]:.1f})" for a, b in sorted(pairs, key=gap.__getitem__)[:most])


PAGE = """\
# What are KDSR's descriptors worth?

Descriptors D of {count} patches of {photographs} photographs that no training saw (DATA/valid): {draws} draws,
by a seed of their own, of each of the {families} auxiliary distributions of the catalogue's graph, {patches} patches a
draw. Everything is predicted for photographs *and* draws that nothing was fitted on. Aims: families at least 0.85, R2
at least 0.8.

Commands:

    python experiments/studies/kdsr_stages.py DATA --study mixed --out runs/kdsr_mixed --seeds 0
    python experiments/studies/kdsr_descriptors.py DATA {models}

{date}, one thread. *families*: accuracy of the 5 nearest neighbours; *content*: accuracy of telling the photograph by
the 5 nearest descriptors of other draws, which should be at chance ({chance:.2f}).

{table}

Closest families for {first} at {patch} HR pixels, by the distance of their means in standard deviations of a patch:
{closest}.

![Descriptors of draws, two principal components](kdsr_descriptors.png)
"""


def line(name: str, patch: int, found: Quality) -> str:
    """Writes a row of the table."""
    figures = (found.families.value, *found.linear.values(), found.content.value)
    return f"| {name} | {patch} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |"


def report(data: Path, models: Sequence[Path], draws: int, out: Path) -> None:
    """Judges networks and writes the page and its figure."""
    images = ImageStore.open(ImageSource.folder(data / "valid"))
    first = load_model(models[0])
    networks = {f"{model.parent.parent.name} {model.name}": load_model(model) for model in models}
    networks["untrained"] = untrained(first)
    lines, chance, closest, count = [], 0.0, "", 0
    for name, network in networks.items():
        for patch in (128, PATCH):
            rows = described(kdsr(network), images, draws, patch)
            found = quality(rows)
            lines.append(line(name, patch, found))
            if patch == PATCH and not closest:
                chance, closest, count = found.content.chance, confusions(rows), len(rows)
                save_png(descriptor_map(by_task(rows)), out.with_suffix(".png"))
    head = "| network | patch, HR pixels | families | R2 log sigma of blur | R2 sigma of noise | content |"
    page = PAGE.format(
        count=count,
        photographs=len(images.names),
        draws=draws,
        families=len(FAMILIES),
        patches=PATCHES,
        models=" ".join(f"--model {model}" for model in models),
        date=datetime.date.today(),
        chance=chance,
        first=next(iter(networks)),
        patch=PATCH,
        closest=closest,
        table="\n".join([head, "| :-- | --: | --: | --: | --: | --: |", *lines]),
    )
    out.write_text(page, encoding="utf-8")


def kdsr(network: Network) -> KDSR:
    """Checks that a network describes."""
    if not isinstance(network, KDSR):
        raise TypeError("only KDSR describes degradations")
    return network


def untrained(like: Network) -> Network:
    """Builds a network of the same size with the initial weights of a seed."""
    return build_model(KDSRSpec(kind="kdsr", size=kdsr(like).size), like.scale, seed=0).eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, action="append", required=True)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("experiments/results/kdsr_descriptors.md"))
    options = parser.parse_args()
    prepare_process()
    report(options.data, options.model, options.draws, options.out)
