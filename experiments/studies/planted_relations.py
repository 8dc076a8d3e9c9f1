"""Do estimators find relations that are known: a target that secretly is, or is mixed from, auxiliary distributions?

one    the target draws its five shots from one of the ten auxiliary distributions; that one must be related most.
two    each shot is degraded by one of two distributions, at random; both must be among the three nearest. Where all
       shots happen to come from one of them this is left to luck: `two_possible` is the share of the others.
family relations of distributions of a family (blur, noise, JPEG) must exceed those across families: the area under the
       ROC curve (AUC) of telling the ones from the others by their relation.

Run:     python experiments/studies/planted_relations.py --estimator response --draws 20
Results: experiments/results/planted_relations.md
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from metarestore.config.experiment import Experiment
from metarestore.graphs.estimate import estimate
from metarestore.graphs.relations import Relations
from metarestore.project import TASK_FILE, Project, catalogue, resolve
from metarestore.seeds import generator
from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.synthetic import SyntheticSpec
from metarestore.workspace.process import prepare_process
from metarestore.workspace.workspace import Workspace

AUXILIARY = Project(catalogue()).graph("phone_camera").auxiliary

FAMILIES = (
    ("blur_aniso", "blur_iso_mild", "blur_iso_wide"),
    ("noise_gaussian", "noise_poisson"),
    ("jpeg", "noise_jpeg", "blur_jpeg"),
)
"""Distributions that are kin; the others belong to no family alone (no blur at all, or blur and noise)."""


def workspace_of(target: SyntheticSpec | PairsSpec, seed: int, shot_size: int, estimator: dict[str, Any]) -> Workspace:
    """Opens a study on the embedded photographs whose target is hidden under another name."""
    experiment = Experiment.model_validate(
        {
            "seed": seed,
            "graph": {"target": "phone_camera", "auxiliary": AUXILIARY, "estimator": estimator},
            "model": {"kind": "fsrcnn"},
            "learner": {"kind": "pretrain"},
            "training": {"steps": 1000, "patch": 96, "support": 2, "query": 2},
            "adaptation": {"shots": 5, "shot_size": shot_size, "steps": 30, "lr": 1e-4},
            "evaluation": {"crop": 96, "crops": 1},
            "engine": {"kind": "local"},
        }
    )
    return Workspace(replace(resolve(experiment, catalogue()), target=target))


def mixed(names: Sequence[str], specs: dict[str, SyntheticSpec]) -> SyntheticSpec:
    """Makes a distribution whose tasks are drawn from several others, one at a time."""
    groups = [{"op": "group", "steps": specs[name].model_dump(mode="json")["pipeline"]} for name in names]
    document = {"kind": "synthetic", "scale": 4, "pipeline": [{"op": "one_of", "choices": groups}]}
    found = TASK_FILE.validate_python(document)
    assert isinstance(found, SyntheticSpec)
    return found


def related(workspace: Workspace) -> Relations:
    """Estimates in this process."""
    return estimate(workspace, lambda jobs, flat: [job.run(workspace, flat) for job in jobs], workspace.initial())


def family_auc(matrix: np.ndarray, names: Sequence[str]) -> float:
    """Returns the AUC of telling pairs of one family from pairs across families by their relation."""
    family = {name: k for k, members in enumerate(FAMILIES) for name in members}
    within: list[float] = []
    across: list[float] = []
    for i, name in enumerate(names):
        for j in range(i):
            if name in family and names[j] in family:
                (within if family[name] == family[names[j]] else across).append(matrix[i, j])
    ranks = rankdata([*within, *across])[: len(within)]
    return float((ranks.sum() - len(within) * (len(within) + 1) / 2) / (len(within) * len(across)))


def parts_drawn(workspace: Workspace) -> int:
    """Counts the parts of a mixture that its shots were really drawn from."""
    return len({shot.degradations[0].position[1] for shot in workspace.target_draw.shots})


def run(kind: str, first_draw: int, draws: int, shot_size: int, options: dict[str, Any]) -> dict[str, Any]:
    """Plants relations and tells how often they are found."""
    project = Project(catalogue())
    specs: dict[str, SyntheticSpec] = {}
    for name in AUXILIARY:
        spec = project.task(name)
        assert isinstance(spec, SyntheticSpec)
        specs[name] = spec
    estimator = {"kind": kind, **options}
    first: list[dict[str, Any]] = []
    both: list[dict[str, Any]] = []
    aucs: list[float] = []
    seconds: list[float] = []
    for draw in range(first_draw, first_draw + draws):
        planted = AUXILIARY[draw % len(AUXILIARY)]
        started = time.perf_counter()
        relations = related(workspace_of(specs[planted], draw, shot_size, estimator))
        seconds.append(time.perf_counter() - started)
        order = [relations.auxiliary[i] for i in np.argsort(-relations.values)]
        first.append({"planted": planted, "order": order})
        if relations.matrix is not None:
            aucs.append(family_auc(relations.matrix, relations.auxiliary))
        pair = [str(name) for name in generator(draw, "pair").choice(AUXILIARY, 2, replace=False)]
        workspace = workspace_of(mixed(pair, specs), draw, shot_size, estimator)
        relations = related(workspace)
        order = [relations.auxiliary[i] for i in np.argsort(-relations.values)]
        both.append({"planted": pair, "order": order, "parts": parts_drawn(workspace)})
        print(draw, planted, first[-1]["order"][:3], "|", pair, both[-1]["order"][:3], flush=True)
    return {
        "estimator": estimator,
        "one": float(np.mean([row["order"][0] == row["planted"] for row in first])),
        "two": float(np.mean([set(row["planted"]) <= set(row["order"][:3]) for row in both])),
        "two_possible": float(np.mean([row["parts"] == 2 for row in both])),
        "family_auc": float(np.mean(aucs)) if aucs else None,
        "seconds": float(np.median(seconds)),
        "first": first,
        "both": both,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimator", default="response")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--first-draw", type=int, default=0, help="seed of the first draw")
    parser.add_argument("--shot-size", type=int, default=128)
    parser.add_argument("--options", type=json.loads, default={}, help="e.g. '{\"draws\": 48}'")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prepare_process()
    result = run(arguments.estimator, arguments.first_draw, arguments.draws, arguments.shot_size, arguments.options)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    print({key: value for key, value in result.items() if key not in ("first", "both")})
