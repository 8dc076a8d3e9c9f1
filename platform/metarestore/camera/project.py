"""The project in the results folder: the pairs as a task, the fitted distribution, and the experiments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metarestore.camera.pairs import CameraPairs, whole_blocks
from metarestore.camera.settings import BATCH, PATCH, Plan, Request, Way, learning_rate
from metarestore.config.dump import dump_yaml
from metarestore.config.model import AnyModelSpec
from metarestore.fitting import fit_camera, write_task
from metarestore.models.checkpoint import network_hash
from metarestore.tasks.pair_files import PairFolder
from metarestore.tasks.pair_masks import MASKS, mask_files

CAMERA, FITTED = "camera", "camera_fitted"
"""Names of the tasks: the pairs, and the distribution fitted to the shots."""


class Start(NamedTuple):
    """The network to start from: its file, specification, and number of parameters."""

    file: Path
    spec: AnyModelSpec
    parameters: int


class CameraProject:
    """Writes the project.

    Args:
        request: What the user asks for.
        pairs: The usable pairs.
        start: The network to start from.
    """

    def __init__(self, request: Request, pairs: CameraPairs, start: Start) -> None:
        self.root = request.out.absolute()
        self._request, self._pairs, self._start = request, pairs, start

    @property
    def given(self) -> dict[str, Any]:
        """What determines the results, besides the time."""
        request, pairs = self._request, self._pairs
        data = None if request.data is None else str(request.data.absolute())
        names = [pair.name for pair in pairs.files]
        network = network_hash(self._start.file)
        return {"pairs": names, "shots": pairs.shots, "model": network, "data": data, "seed": request.seed}

    @property
    def start(self) -> str:
        """The network to start from, in words."""
        return f"{self._start.file.stem}, {self._start.parameters:,} parameters"

    @property
    def fitted_task(self) -> Path:
        """The file of the fitted distribution."""
        return self.root / "tasks" / f"{FITTED}.yaml"

    @property
    def fitted_run(self) -> Path:
        """The folder of the training on it."""
        return self.root / "fitted"

    def write_pairs(self) -> None:
        """Links the usable pairs, and writes their task."""
        for pair in self._pairs.files:
            sides = {"lr": pair.lr, "hr": pair.hr}
            if (mask := mask_files(pair.lr.parent, pair.hr.parent).get(pair.name)) is not None:
                sides[MASKS] = mask
            for side, file in sides.items():
                link = self.root / "pairs" / side / f"{pair.name}{file.suffix}"
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(file.absolute())
        task = {"kind": "pairs", "scale": self._pairs.scale, "lr": "pairs/lr", "hr": "pairs/hr"}
        header = f"The pairs of {self._request.pairs}; the first {self._pairs.shots} by name are the shots."
        dump_yaml(task | {"support_pool": self._pairs.shots}, self.root / "tasks" / f"{CAMERA}.yaml", header)

    def fit(self) -> None:
        """Fits a distribution to the shots, unless it is there.

        Raises:
            UserError: No plausible degradation explains the shots.
        """
        if not self.fitted_task.exists():
            folder = PairFolder(self.root / "pairs/lr", self.root / "pairs/hr", None, self._pairs.scale)
            write_task(fit_camera(folder, count=self._pairs.shots, source="pairs"), self.fitted_task)

    def write_experiment(self, name: str, plan: Plan, ways: Mapping[str, Way], title: str) -> Path:
        """Writes the experiment that compares ways, or trains on the fitted distribution if there are none."""
        content = self.experiment(plan)
        if ways:
            content["arms"] = {arm: self.arm(way, plan) for arm, way in ways.items()}
        else:
            fitted = {"steps": plan.fitted_steps, "init": str(self._start.file)}
            content |= {
                "graph": {"target": CAMERA, "auxiliary": [FITTED], "estimator": {"kind": "uniform"}},
                "model": self._model(kept=True),
                "training": content["training"] | fitted,
            }
        path = self.root / "experiments" / f"{name}.yaml"
        dump_yaml(content, path, title)
        return path

    def experiment(self, plan: Plan) -> dict[str, Any]:
        """Returns the experiment without arms: the network as it is, measured on the test pairs."""
        patch = whole_blocks(min(PATCH, self._pairs.side), self._pairs.scale)
        return {
            "seed": self._request.seed,
            "data": "embedded" if self._request.data is None else {"train": str(self._request.data.absolute())},
            "graph": {"target": CAMERA, "auxiliary": ["bicubic"], "estimator": {"kind": "uniform"}},
            "scale": self._pairs.scale,
            "model": self._model(kept=False),
            "learner": {"kind": "pretrain"},
            "training": {
                "init": str(self._start.file),
                "steps": 0,
                "tasks_per_step": BATCH // 2,
                "shard_size": 1,
                "support": 1,
                "query": 1,
                "patch": patch,
                "optimizer": {"kind": "adam", "lr": learning_rate(self._start.parameters), "schedule": "cosine"},
            },
            "adaptation": {
                "shots": self._pairs.shots,
                "shot_size": self._pairs.side,
                "steps": 0,
                "lr": learning_rate(self._start.parameters),
                "schedule": "cosine",
                "patch": patch,
                "batch": BATCH,
            },
            "evaluation": {"crop": self._pairs.side, "crops": 1, "every": max(plan.steps, 1)},
            "engine": {"kind": "local"},
        }

    def arm(self, way: Way, plan: Plan) -> dict[str, Any]:
        """Returns a way as a patch of the experiment."""
        arm: dict[str, Any] = {}
        if way.fitted:
            arm["training"] = {"init": str(self.fitted_run.relative_to(self.root))}
        if way.fitted or way.adapts is not None:
            arm["model"] = self._model(kept=True)
        if way.adapts is not None:
            adapts = way.adapts if isinstance(way.adapts, str | tuple) else way.adapts.model_dump()
            arm["adaptation"] = {"steps": plan.steps, "lr": way.rate(self._start.parameters), "adapts": adapts}
        return arm

    def _model(self, *, kept: bool) -> dict[str, Any]:
        kept_spec = self._start.spec.model_copy(update={"keep_low_frequencies": "both"}) if kept else self._start.spec
        return kept_spec.model_dump(mode="json")
