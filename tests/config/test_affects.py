"""What a key affects is declared once, at its field; every list of keys follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from metarestore.ablation.plan import digest, training_study
from metarestore.config.affects import MEASURED, SEVERAL, TRAINED, Affects, keys, neutral, sections, unaffecting
from metarestore.config.base import Strict
from metarestore.config.experiment import MANY, Experiment
from metarestore.training.run import study_record
from metarestore.tuning.record import described
from metarestore.workspace.study import Study


def silent(model: type[BaseModel]) -> Iterator[str]:
    """Yields the fields that declare nothing, nor lie in a section that declares enough for all of its fields.

    That a section affects the training is enough: nothing is shared wrongly if all of it counts. That it is about
    several experiments is enough, too, since a single one lacks it.
    """
    for name, field in model.model_fields.items():
        declared, inner = Affects.of(field), sections(field)
        if declared is None and not inner:
            yield f"{model.__name__}.{name}"
        if not (declared or Affects.NOTHING) & (TRAINED | SEVERAL):
            for section in inner:
                yield from silent(section)


def test_every_key_declares_what_it_affects() -> None:
    assert list(silent(Experiment)) == []


def test_a_key_that_declares_nothing_is_found() -> None:
    class Inner(Strict):
        told: Annotated[int, Affects.NOTHING] = 0
        untold: int = 0

    class Outer(Strict):
        plain: Inner
        measured: Annotated[Inner, Affects.MEASUREMENT]
        trained: Annotated[Inner | None, Affects.TRAINING]
        listed: tuple[Inner, ...]

    assert list(silent(Outer)) == ["Inner.untold", "Inner.untold", "Outer.listed"]


def test_no_key_of_a_result_is_left_out_of_its_record() -> None:
    left_out = unaffecting(Experiment, MEASURED)
    assert left_out == {"training": {"keep": True}, "engine": True} | dict.fromkeys(MANY, True)
    measured = {"method": True, "kernel": True, "alternatives": True}
    assert unaffecting(Experiment, TRAINED) == left_out | {"evaluation": True, "adaptation": measured}


def test_compared_experiments_share_what_they_are_measured_by() -> None:
    shared = {"seed", "scale", "data", "evaluation", "graph.target"}
    assert set(keys(Experiment, Affects.COMPARISON)) == shared
    keys_of_shots = ("shots", "first_shot", "shot_size", "off_colour_shots")
    shots = {f"adaptation.{key}" for key in keys_of_shots}
    assert set(keys(Experiment, Affects.SHOTS)) == shots


def test_a_key_of_a_section_may_declare_more_than_the_section() -> None:
    assert "learner" in keys(Experiment, Affects.TRAINING)
    assert {"learner.kind", "learner.adapts"} <= set(keys(Experiment, Affects.BUILDING))
    assert keys(Experiment, SEVERAL) == MANY


def test_neutral_changes_what_has_no_part_and_nothing_else(small_experiment: Callable[..., Experiment]) -> None:
    written = small_experiment(
        training={"keep": 3, "steps": 7}, adaptation={"alternatives": [{"steps": 9}]}, evaluation={"every": 2}
    )
    found = neutral(written, TRAINED)
    assert (found.training.keep, found.training.steps) == (1, 7)
    assert (found.adaptation.alternatives, found.adaptation.steps) == ((), written.adaptation.steps)
    assert found.evaluation == type(found.evaluation)()
    assert (found.graph, found.model, found.learner) == (written.graph, written.model, written.learner)


def leaves(model: BaseModel, above: tuple[str, ...] = (), inherited: Affects = Affects.NOTHING) -> Iterator[Any]:
    """Yields the path of every value of an experiment that is no section, with all that holds for it."""
    for name, field in type(model).model_fields.items():
        value, affects = getattr(model, name), inherited | (Affects.of(field) or Affects.NOTHING)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*above, name), affects)
        else:
            yield (*above, name), affects


def otherwise(value: Any, annotation: Any) -> Any:
    """Returns another value of the same type, valid or not."""
    if get_origin(annotation) is Literal:
        return next((other for other in get_args(annotation) if other != value), "another")
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return {"str": "another", "tuple": ("another",), "dict": {"another": 1}}.get(type(value).__name__, 1)


def changed(model: BaseModel, path: tuple[str, ...]) -> Any:
    """Returns a model with another value at a path."""
    name, *rest = path
    value = getattr(model, name)
    new = changed(value, tuple(rest)) if rest else otherwise(value, type(model).model_fields[name].annotation)
    return model.model_copy(update={name: new})


RESOLVED = {"graph.target", "graph.auxiliary", "graph.prior", "training.init"}
"""Names and files, which a study holds as what they stand for."""

SETTINGS: list[dict[str, Any]] = [
    {},
    {"engine": {"kind": "ray"}},
    {"graph": {"estimator": {"kind": "learned"}}, "learner": {"kind": "reptile"}},
    {"graph": {"estimator": {"kind": "gradient"}}, "learner": {"kind": "pretrain"}},
]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_records_and_shared_trainings_change_with_what_affects_them_and_nothing_else(
    settings: dict[str, Any], small_study: Callable[..., Study]
) -> None:
    study = small_study(**settings)
    record, training = study_record(study), digest(training_study(study))
    sweep = described(study.experiment)
    seen = []
    for path, affects in leaves(study.experiment):
        if ".".join(path) in RESOLVED:
            continue
        other = replace(study, experiment=changed(study.experiment, path))
        assert reduce(getattr, path, other.experiment) != reduce(getattr, path, study.experiment)
        assert (study_record(other) != record) == bool(affects & (MEASURED | Affects.COMPARE)), path
        assert (digest(training_study(other)) != training) == bool(affects & TRAINED), path
        assert (described(other.experiment) != sweep) == bool(affects & (MEASURED | Affects.TUNE)), path
        seen.append(path)
    assert len(seen) > 40
