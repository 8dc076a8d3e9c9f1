"""Structures: what acts, how often, in which order; and the cases of a protocol."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from pydantic import ValidationError

from metarestore.degradations import DegradationDraw, Pipeline, replay, replay_each


def gamma(exponent: float) -> dict[str, object]:
    return {"op": "gamma", "exponent": exponent}


def drawn(written: list[dict[str, object]], count: int = 400) -> list[tuple[DegradationDraw, ...]]:
    pipeline = Pipeline.model_validate(written)
    return [pipeline.draw((index,), 1) for index in range(count)]


def exponents(draws: tuple[DegradationDraw, ...]) -> list[float]:
    return [draw.params["exponent"] for draw in draws]


def test_a_group_acts_as_a_whole():
    draws = drawn([{"op": "group", "probability": 0.3, "steps": [gamma(1), gamma(2)]}], 1000)
    assert {tuple(exponents(each)) for each in draws} == {(), (1, 2)}
    share = sum(bool(each) for each in draws) / 1000
    assert abs(share - 0.3) < 3 * (0.3 * 0.7 / 1000) ** 0.5


def test_one_of_follows_its_weights():
    draws = drawn([{"op": "one_of", "choices": [gamma(1), gamma(2), gamma(3)], "weights": [6, 3, 0]}], 1000)
    counts = Counter(exponents(each)[0] for each in draws)
    assert set(counts) == {1, 2}
    assert abs(counts[1] / 1000 - 2 / 3) < 3 * (2 / 9 / 1000) ** 0.5


def test_shuffle_takes_every_order_alike():
    draws = drawn([{"op": "shuffle", "steps": [gamma(1), gamma(2), gamma(3)]}], 1200)
    counts = Counter(tuple(exponents(each)) for each in draws)
    assert len(counts) == 6
    assert all(abs(count / 1200 - 1 / 6) < 4 * (5 / 36 / 1200) ** 0.5 for count in counts.values())


def test_shuffle_keeps_an_order_that_is_asked_for():
    steps = [gamma(1), gamma(2), gamma(3), gamma(4)]
    draws = drawn([{"op": "shuffle", "steps": steps, "ordered": [3, 1]}])
    orders = {tuple(exponents(each)) for each in draws}
    assert all(order.index(2) < order.index(4) for order in orders)
    assert len(orders) == 12


def test_what_an_entry_draws_does_not_depend_on_the_order_it_acts_in():
    step = {"op": "gamma", "exponent": [1, 2]}
    for each in drawn([{"op": "shuffle", "steps": [step, step]}], 20):
        straight = Pipeline.model_validate([{"op": "group", "steps": [step, step]}])
        assert len(straight.draw((0,), 1)) == 2
        assert {draw.position for draw in each} == {(0, 0), (0, 1)}


def test_repeat_draws_anew_each_time():
    (draws,) = drawn([{"op": "repeat", "times": 3, "steps": [{"op": "gamma", "exponent": [1, 2]}]}], 1)
    assert [draw.position for draw in draws] == [(0, 0, 0), (0, 1, 0), (0, 2, 0)]
    assert len(set(exponents(draws))) == 3


def test_repeat_may_draw_how_often():
    lengths = Counter(len(each) for each in drawn([{"op": "repeat", "times": [0, 2], "steps": [gamma(1)]}]))
    assert set(lengths) == {0, 1, 2}


def test_structures_nest():
    inner = {"op": "one_of", "choices": [gamma(1), {"op": "group", "steps": [gamma(2), gamma(3)]}]}
    found = {tuple(exponents(each)) for each in drawn([{"op": "repeat", "times": 2, "steps": [inner]}])}
    assert found == {(1, 1), (1, 2, 3), (2, 3, 1), (2, 3, 2, 3)}


def nested_repeats(depth: int) -> dict[str, object]:
    inner = nested_repeats(depth - 1) if depth > 1 else gamma(1)
    return {"op": "repeat", "times": 16, "steps": [inner]}


DOWN = {"op": "downsample"}


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ([{"op": "one_of", "choices": [DOWN, gamma(1)]}], "0 to 1"),
        ([{"op": "one_of", "choices": [DOWN, {"op": "group", "steps": [DOWN, DOWN]}]}], "1 to 2"),
        ([{"op": "group", "probability": 0.5, "steps": [DOWN]}], "0 to 1"),
        ([{"op": "repeat", "times": [1, 2], "steps": [DOWN]}], "1 to 2"),
        ([{"op": "repeat", "times": 2, "steps": [DOWN]}], "2"),
    ],
)
def test_every_draw_must_shrink_once(written, count):
    with pytest.raises(ValueError, match=f"exactly one downsample at scale 4, got {count}"):
        Pipeline.model_validate(written).check_scale(4)


@pytest.mark.parametrize(
    "written",
    [
        [{"op": "one_of", "choices": [DOWN, {"op": "group", "steps": [gamma(1), DOWN]}]}],
        [{"op": "one_of", "weights": [1, 0], "choices": [DOWN, gamma(1)]}],
        [{"op": "shuffle", "steps": [DOWN, gamma(1)]}],
        [{"op": "repeat", "times": 1, "steps": [DOWN]}],
    ],
)
def test_a_downsample_may_stand_inside_structures(written):
    Pipeline.model_validate(written).check_scale(4)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"op": "group", "steps": []}, "has no entries"),
        ({"op": "one_of", "choices": [gamma(1)], "weights": [1, 2]}, "2 weights for 1 choices"),
        ({"op": "one_of", "choices": [gamma(1)], "weights": [0]}, "not all 0"),
        ({"op": "one_of", "choices": [gamma(1)], "weights": [1e308] * 2}, "2 weights for 1 choices"),
        ({"op": "shuffle", "steps": [gamma(1)], "ordered": [1]}, "lists entry 1, which does not exist"),
        ({"op": "repeat", "times": 17, "steps": [gamma(1)]}, "17 is above 16"),
        (nested_repeats(7), "may have 268435456 operations, but at most 256"),
        ({"op": "repeat", "times": 1.5, "steps": [gamma(1)]}, "not a whole number"),
    ],
)
def test_a_wrong_structure_is_explained(entry, message):
    with pytest.raises(ValidationError, match=message):
        Pipeline.model_validate([entry])


def test_a_resize_after_the_downsample_is_brought_back_to_the_lr_size():
    steps = [DOWN, {"op": "resize", "factor": 0.6}]
    draws = Pipeline.model_validate(steps).draw((0,), 4)
    for backend in ("opencv", "torch"):
        assert replay(torch.rand(2, 3, 64, 48), draws, [0, 1], backend).shape == (2, 3, 16, 12)


def test_replay_each_wants_a_draw_and_a_seed_per_image():
    with pytest.raises(ValueError, match="got 1 draws and 2 seeds for 2 images"):
        replay_each(torch.rand(2, 3, 8, 8), [()], [0, 1])


def test_torch_backend_passes_gradients_through_the_rounding():
    steps = [{"op": "gaussian_blur", "sigma": 1}, DOWN, {"op": "gaussian_noise", "sigma": 2}]
    draws = Pipeline.model_validate(steps).draw((0,), 4)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    images.requires_grad_()
    replay(images, draws, [0, 1], "torch").sum().backward()
    # A blur and a downsampling of mean 1: every HR pixel is worth 1/16 of an LR pixel, but at the border.
    assert images.grad[:, :, 12:-12, 12:-12].mean() == pytest.approx(1 / 16, rel=0.01)


def cases(*written: dict[str, object]) -> list[list[float]]:
    return [exponents(case) for case in Pipeline.model_validate(written).cases(1)]


def choice(*values: float) -> dict[str, object]:
    return gamma({"choice": list(values)})


def test_a_protocol_is_the_grid_of_its_choices():
    assert cases(choice(1, 2), choice(3, 4)) == [[1, 3], [1, 4], [2, 3], [2, 4]]
    assert cases({"op": "one_of", "choices": [gamma(1), choice(2, 3)]}, gamma(4)) == [[1, 4], [2, 4], [3, 4]]
    assert cases({"op": "repeat", "times": 2, "steps": [choice(1, 2)]}) == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert cases({"op": "group", "steps": [choice(1, 2), gamma(3)]}) == [[1, 3], [2, 3]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (gamma([1, 2]), "write a number or {choice"),
        ({**gamma(1), "probability": 0.5}, "remove probability"),
        ({"op": "shuffle", "steps": [gamma(1)]}, "cannot shuffle"),
        ({"op": "repeat", "times": [1, 2], "steps": [gamma(1)]}, "write one number"),
        ({"op": "repeat", "times": 16, "steps": [choice(1, 2, 3, 4)]}, "at most 1000 cases"),
    ],
)
def test_a_protocol_leaves_nothing_to_chance(entry, message):
    with pytest.raises(ValueError, match=message):
        Pipeline.model_validate([entry]).cases(1)
