"""Looking up everything that an experiment names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from metarestore.config.document import followed
from metarestore.config.estimators import estimate_behind, measure, takes_prior
from metarestore.config.experiment import Experiment, FolderDataSpec
from metarestore.config.file_names import full_path
from metarestore.config.network_path import with_network_paths
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.models.shipped import shipped
from metarestore.project.names import Project
from metarestore.tasks.images import ImageSource
from metarestore.tasks.task import Split
from metarestore.workspace.study import Study


def resolve(experiment: Experiment, root: Path, project: Project | None = None) -> Study:
    """Looks up everything that an experiment names and checks that it fits together.

    Args:
        experiment: The experiment.
        root: The project's folder.
        project: The same folder as a project, if several experiments share its files.

    Raises:
        UserError: A name is unknown, a folder is missing, or a size does not fit the scale.
    """
    project = project or Project(root)
    experiment = _rooted(experiment, root)
    target = project.task(experiment.graph.target, "graph.target", experiment.scale)
    auxiliary = project.auxiliary(experiment.graph, experiment.scale)
    study = Study(experiment, auxiliary, target, _images(experiment, root), root.absolute())
    if problems := [*_size_problems(study), *_zero_shot_problems(study), *_image_problems(study)]:
        raise UserError(problems)
    _check_prior(study)
    return study


def _size_problems(study: Study) -> Iterator[str]:
    """Yields the sizes of HR patches that are not a multiple of the scale."""
    experiment = study.experiment
    sizes = {
        "training.patch": experiment.training.patch,
        "adaptation.shot_size": experiment.adaptation.shot_size,
        "evaluation.crop": experiment.evaluation.crop,
        "adaptation.patch": experiment.adaptation.patch,
    }
    for position, alternative in enumerate(experiment.adaptation.alternatives):
        sizes[f"adaptation.alternatives[{position}].patch"] = alternative.patch
    for key, size in sizes.items():
        if size is not None and size % study.scale:
            yield f"{key}: {size} is not a multiple of the scale {study.scale}; write {size - size % study.scale}"


def _zero_shot_problems(study: Study) -> Iterator[str]:
    """Yields patches larger than the LR side of a test crop, from which zero-shot adaptation cuts them."""
    adaptation, scale = study.experiment.adaptation, study.scale
    if adaptation.method == "shots":
        return
    most = study.experiment.evaluation.crop // scale // scale * scale
    sizes = {"adaptation.patch": adaptation.patch}
    for position, alternative in enumerate(adaptation.alternatives):
        sizes[f"adaptation.alternatives[{position}].patch"] = alternative.patch
    for key, size in sizes.items():
        if size is not None and size > most:
            yield (
                f"{key}: patches are cut from the LR side of a test crop, of which at most {most} pixels can be used; "
                f"write no more, or raise evaluation.crop, got {size}"
            )


def _image_problems(study: Study) -> Iterator[str]:
    """Yields why the photographs or real pairs do not fit the experiment."""
    experiment = study.experiment
    if study.target.own_images is None and "test" not in study.images:
        yield (
            f"data.test: is missing, and the target '{experiment.graph.target}' is synthetic; "
            "name a folder of photographs, e.g. data: {train: DIR, test: DIR}"
        )
    own = [name for name, spec in study.auxiliary.items() if spec.own_images]
    if experiment.shared_until and own:
        yield (
            f"learner.warmup_steps: the contrast warms up on the same clean patches for all, but '{own[0]}' has "
            "images of its own; leave it out of graph.auxiliary, or write warmup_steps: 0"
        )


def _check_prior(study: Study) -> None:
    """Checks before the training that the prior can be used."""
    graph = study.experiment.graph
    if graph.prior is not None and takes_prior(graph.estimator):
        from metarestore.graphs.prior import earlier_relations

        earlier_relations(graph.prior.graph, measure(estimate_behind(graph.estimator)), study.auxiliary)


def _rooted(experiment: Experiment, root: Path) -> Experiment:
    """Makes the paths of trained networks and of an earlier graph absolute."""
    graph = experiment.graph
    if graph.prior is not None:
        prior = graph.prior.model_copy(update={"graph": followed(full_path(root, graph.prior.graph))})
        experiment = experiment.model_copy(update={"graph": graph.model_copy(update={"prior": prior})})
    return with_network_paths(experiment, lambda key, path: _network(path, root, key))


def _network(given: Path, root: Path, key: str) -> Path:
    path = followed(full_path(root, given))
    if path.exists():
        return path
    known = shipped()
    if str(given) not in known:
        hint = did_you_mean(str(given), known, noun="shipped networks")
        raise UserError(f"{key}: there is no {path}; give a run's folder or its model.safetensors{hint}")
    return followed(known[str(given)])


def _images(experiment: Experiment, root: Path) -> dict[Split, ImageSource]:
    splits: tuple[Split, ...] = ("train", "validation", "test")
    if not isinstance(experiment.data, FolderDataSpec):
        return {split: ImageSource.embedded(split) for split in splits}
    folders = {split: getattr(experiment.data, split) for split in splits}
    named: dict[Split, Path] = {split: followed(full_path(root, folder)) for split, folder in folders.items() if folder}
    for split, folder in named.items():
        twin = next((other for other in named if other != split and named[other] == folder), None)
        if twin:
            raise UserError(
                f"data.{twin}: is the same folder as data.{split}; photographs must not be learned and tested on"
            )
    return {split: ImageSource.folder(folder) for split, folder in named.items()}
