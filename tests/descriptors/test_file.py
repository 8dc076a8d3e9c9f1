"""The file of descriptors reads back as it was written, and says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarestore.config.model import FSRCNNSpec
from metarestore.descriptors.describe import Description, Item
from metarestore.descriptors.file import (
    DescribedBy,
    Descriptors,
    chosen_embedding,
    read_descriptors,
    write_descriptors,
)
from metarestore.errors import UserError
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, network_hash
from metarestore.models.kdsr import KDSR

RNG = np.random.default_rng(0)


def group(name: str, items: int = 2, images: int = 3) -> Description:
    found = [
        Item(str(k), {"jpeg.quality": 40 + k, "blur.sigma": 0.1}, ("é",) * images, RNG.normal(size=16), RNG.random(16))
        for k in range(items)
    ]
    return Description(name, "task", tuple(found))


@pytest.fixture
def network(saved: Callable[..., Path]) -> tuple[Path, KDSR]:
    folder = saved()
    return folder, load_model(folder)


@pytest.fixture
def written(network: tuple[Path, KDSR], tmp_path: Path) -> Path:
    """A file with two groups, one of which has a colon in its name."""
    write_descriptors(tmp_path / "d.json", Descriptors.of(DescribedBy.of(*network), 7, [group("a"), group("b:c")]))
    return tmp_path / "d.json"


def test_what_is_written_reads_back(network: tuple[Path, KDSR], tmp_path: Path) -> None:
    groups = [group("a"), Description("b", "images", (Item("x", {}, ("x",), RNG.normal(size=16), None),))]
    write_descriptors(tmp_path / "d.json", Descriptors.of(DescribedBy.of(*network), 7, groups))
    found = read_descriptors(tmp_path / "d.json")
    assert (found.seed, found.channels) == (7, 16)
    folder = network[0]
    assert found.model == DescribedBy(path=str(folder), hash=network_hash(folder), size="tiny", estimator="student")
    for before, after in zip(groups, found.descriptions(), strict=True):
        assert (before.name, before.kind, before.count) == (after.name, after.kind, after.count)
        np.testing.assert_array_equal(before.mean, after.mean)
        for one, other in zip(before.items, after.items, strict=True):
            assert (one.name, one.parameters, one.photographs) == (other.name, other.parameters, other.photographs)
            assert (one.spread is None) == (other.spread is None)
            np.testing.assert_array_equal(one.mean, other.mean)
    assert json.loads((tmp_path / "d.json").read_text())["format"] == "metarestore descriptors"


def test_the_embedding_is_the_mean_of_a_group(written: Path) -> None:
    found = read_descriptors(written)
    for one in found.descriptions():
        embedding = found.embedding(one.name)
        assert embedding.dtype == torch.float32
        np.testing.assert_allclose(embedding.numpy(), one.mean[None], rtol=1e-6)
    with pytest.raises(UserError, match="holds several groups; say which one, as FILE:GROUP, of a, b:c"):
        found.embedding()
    with pytest.raises(UserError, match="holds no group 'd'; name one of a, b:c"):
        found.embedding("d")


def test_a_single_group_needs_no_name(network: tuple[Path, KDSR]) -> None:
    only = group("a")
    found = Descriptors.of(DescribedBy.of(*network), 0, [only]).embedding()
    np.testing.assert_allclose(found.numpy(), only.mean[None], rtol=1e-6)


def test_the_option_names_file_and_group(network: tuple[Path, KDSR], written: Path) -> None:
    found = read_descriptors(written)
    for name in ("a", "b:c"):
        assert torch.equal(chosen_embedding(f"{written}:{name}", *network), found.embedding(name))
    odd = written.with_name("odd:name.json")
    written.rename(odd)
    assert torch.equal(chosen_embedding(f"{odd}:a", *network), found.embedding("a"))
    with pytest.raises(UserError, match=r"^--embedding: .*odd:name.json holds several groups"):
        chosen_embedding(str(odd), *network)


def test_embeddings_of_other_networks_are_refused(
    saved: Callable[..., Path], network: tuple[Path, KDSR], written: Path
) -> None:
    other = saved("other", seed=1)
    with pytest.raises(UserError, match=r"made by another network, .*net; .*metarestore describe --model .*other"):
        chosen_embedding(f"{written}:a", other, load_model(other))
    with pytest.raises(UserError, match="use a KDSR"):
        chosen_embedding(f"{written}:a", network[0], build_model(FSRCNNSpec(), 4, 0))


def changed(written: Path, change: Callable[[Any], object]) -> None:
    data = json.loads(written.read_text())
    change(data)
    written.write_text(json.dumps(data))


BROKEN = {
    "another format": (lambda d: d.update(format="metarestore samples"), "format: "),
    "a later version": (lambda d: d.update(version=2), "version: "),
    "a missing key": (lambda d: d.pop("seed"), "seed: "),
    "an unknown key": (lambda d: d.update(extra=1), "extra: "),
    "no groups": (lambda d: d.update(groups=[]), "groups: "),
    "no items": (lambda d: d["groups"][0].update(items=[]), "groups.0.items: "),
    "a name twice": (lambda d: d["groups"][1].update(name="a"), "two groups have the same name"),
    "a short descriptor": (lambda d: d["groups"][1]["items"][0]["mean"].pop(), "'0' in 'b:c' has not 16 numbers"),
    "a short spread": (lambda d: d["groups"][0]["items"][1]["spread"].pop(), "'1' in 'a' has not 16 numbers"),
    "not a number": (lambda d: d["groups"][0]["items"][0]["mean"].__setitem__(3, float("nan")), "items.0.mean.3: "),
    "a wrong count": (lambda d: d["groups"][0]["items"][0].update(count=4), "there are 3 photographs"),
    "a wrong hash": (lambda d: d["model"].update(hash="x"), "model.hash: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_says_what_is_wrong(written: Path, name: str) -> None:
    change, expected = BROKEN[name]
    changed(written, change)
    with pytest.raises(UserError) as caught:
        read_descriptors(written)
    [line] = caught.value.problems
    assert line.startswith(f"{written}: ")
    assert expected in line
    assert "\n" not in line


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.json").write_bytes(content)
    with pytest.raises(UserError, match="is not JSON; name a file that `metarestore describe` wrote"):
        read_descriptors(tmp_path / "d.json")


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "d.json", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_descriptors(path)
