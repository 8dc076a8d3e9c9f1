"""Planted data: what is there is found, what is not is at chance, and what is held back is held back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from metarestore.descriptors.quality import content_leakage, descriptor_quality, linear_r2, neighbour_accuracy

FAMILIES, DRAWS, PHOTOGRAPHS, CHANNELS = 4, 10, 10, 8


class Design:
    """Every photograph under every task; tasks 0 to 9 are of family 0, and so on."""

    def __init__(self) -> None:
        cells = list(itertools.product(range(FAMILIES * DRAWS), range(PHOTOGRAPHS)))
        self.tasks = [task for task, _ in cells]
        self.photographs = [photograph for _, photograph in cells]
        self.families = [f"family {task // DRAWS}" for task in self.tasks]
        self.rng = np.random.default_rng(0)

    def by(self, labels: list, channels: int = CHANNELS) -> np.ndarray:
        """Random descriptors that depend on a label alone."""
        table = {label: self.rng.normal(size=channels) for label in dict.fromkeys(labels)}
        return np.stack([table[label] for label in labels])

    def noise(self, size: float = 1.0) -> np.ndarray:
        return size * self.rng.normal(size=(len(self.tasks), CHANNELS))


@pytest.fixture
def design() -> Design:
    return Design()


def test_families_that_lie_apart_are_told(design: Design) -> None:
    found = neighbour_accuracy(design.by(design.families) + design.noise(0.01), design.families, design.photographs)
    assert found.value == 1
    assert found.chance == pytest.approx(1 / FAMILIES)
    assert found.count == 400


def test_noise_tells_no_family(design: Design) -> None:
    found = neighbour_accuracy(design.noise(), design.families, design.photographs)
    assert abs(found.value - found.chance) < 0.08


def test_units_of_channels_do_not_matter(design: Design) -> None:
    rows = design.by(design.families) + design.noise(0.3)
    rows[:, -1] = design.noise()[:, -1]
    scaled = rows * np.logspace(-6, 6, CHANNELS)
    found = [neighbour_accuracy(one, design.families, design.photographs).value for one in (rows, scaled)]
    assert found[0] == found[1] > 0.9


def test_a_photograph_is_not_recognised_by_its_own_patches() -> None:
    """Content alone, and one family for each photograph: without groups, every patch finds its own photograph."""
    design = Design()
    families = [photograph % 2 for photograph in design.photographs]
    rows = design.by(design.photographs) + design.noise(0.01)
    ungrouped = neighbour_accuracy(rows, families, list(range(len(rows))))
    assert ungrouped.value == 1
    chances = []
    for _ in range(20):
        rows = design.by(design.photographs) + design.noise(0.01)
        chances.append(neighbour_accuracy(rows, families, design.photographs, tasks=design.tasks).value)
    assert np.mean(chances) < 0.65


def test_a_task_is_not_recognised_by_its_own_patches() -> None:
    """Descriptors that know the draw but nothing of its family: only tasks that are held back show it."""
    design = Design()
    rows = design.by(design.tasks) + design.noise(0.01)
    assert neighbour_accuracy(rows, design.families, design.photographs).value == 1
    held_back = neighbour_accuracy(rows, design.families, design.photographs, tasks=design.tasks)
    assert abs(held_back.value - held_back.chance) < 0.2


def test_a_linear_parameter_is_found(design: Design) -> None:
    rows = design.noise()
    values = 3 + rows @ np.arange(CHANNELS)
    assert linear_r2(rows, values, design.photographs) > 0.999
    assert linear_r2(rows, design.noise()[:, 0], design.photographs) < 0.05


def test_rows_without_a_value_are_left_out(design: Design) -> None:
    rows = design.noise()
    values = rows[:, 0].copy()
    rows[::3] = 1e6
    values[::3] = np.nan
    assert linear_r2(rows, values, design.photographs) > 0.999


def test_a_constant_has_no_r2(design: Design) -> None:
    assert np.isnan(linear_r2(design.noise(), np.ones(400), design.photographs))


def test_tasks_are_not_learned_by_heart(design: Design) -> None:
    """As many channels as tasks: a linear map can list the value of each, which new tasks do not follow."""
    rows = design.by(design.tasks, channels=FAMILIES * DRAWS)
    values = design.by(design.tasks, channels=1)[:, 0]
    assert linear_r2(rows, values, design.photographs) > 0.99
    assert linear_r2(rows, values, design.photographs, design.tasks) < 0.3


def test_photographs_are_not_learned_by_heart(design: Design) -> None:
    rows, values = (design.by(design.photographs, channels=count) for count in (PHOTOGRAPHS, 1))
    assert linear_r2(rows, values[:, 0], list(range(len(rows)))) > 0.99
    assert linear_r2(rows, values[:, 0], design.photographs) < 0.3
    assert linear_r2(rows, values[:, 0], design.photographs, design.tasks) < 0.3


def test_content_alone_leaks_wholly(design: Design) -> None:
    found = content_leakage(design.by(design.photographs), design.photographs, design.tasks)
    assert (found.value, found.chance) == (1, pytest.approx(1 / PHOTOGRAPHS))


def test_the_degradation_alone_leaks_nothing(design: Design) -> None:
    rows = design.by(design.tasks) + design.noise(0.01)
    found = content_leakage(rows, design.photographs, design.tasks)
    assert abs(found.value - found.chance) < 0.05


def test_the_whole_judgement(design: Design) -> None:
    severity = np.asarray([(task % DRAWS) / DRAWS for task in design.tasks])
    rows = 20 * design.by(design.families) + design.noise(0.1)
    rows[:, 0] = severity
    found = descriptor_quality(
        rows,
        design.families,
        {"severity": severity, "nothing": design.rng.normal(size=400)},
        design.photographs,
        design.tasks,
    )
    assert found.families.value == 1
    assert found.linear["severity"] > 0.99
    assert found.linear["nothing"] < 0.1
    assert found.content.value < 0.25


def test_one_photograph_cannot_be_held_back(design: Design) -> None:
    with pytest.raises(ValueError, match="at least 2 photographs and tasks are needed to hold one out, got 1"):
        neighbour_accuracy(design.noise(), design.families, [0] * 400)
    with pytest.raises(ValueError, match="coincide, so holding them out leaves no rows to fit on"):
        neighbour_accuracy(np.eye(3), [0, 1, 1], [0, 1, 1], tasks=[0, 0, 1])


def test_few_rows_have_few_neighbours() -> None:
    found = neighbour_accuracy([[0.0], [0.1], [9.0], [9.1]], ["a", "a", "b", "b"], [0, 1, 0, 1], k=1)
    assert found.value == 1
    assert neighbour_accuracy([[0.0], [9.0]], ["a", "b"], [0, 1]).value == 0
