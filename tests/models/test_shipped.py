"""The networks that travel with the package: small, whole, and what their cards say."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from metarestore.errors import UserError
from metarestore.models import shipped as module
from metarestore.models.checkpoint import load_model, network_hash
from metarestore.models.kdsr import KDSR
from metarestore.models.restore import image_restorer
from metarestore.models.shipped import BICUBIC_LR, REAL_PAIRS, folder, read_card, recommended, shipped
from metarestore.project import Project
from metarestore.tasks.spec import content_hash

NAMES = tuple(shipped())


def test_there_are_networks_and_they_are_small() -> None:
    assert NAMES
    assert sum(path.stat().st_size for path in folder().iterdir()) <= 5e6
    assert {path.stem for path in folder().iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_the_file_holds(name: str) -> None:
    card, network = read_card(shipped()[name]), load_model(Path(name))
    assert card.name == name
    assert card.sha256 == hashlib.sha256(shipped()[name].read_bytes()).hexdigest()
    assert card.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert card.scale == network.scale
    assert card.licence
    assert date.fromisoformat(card.date) <= date.today()
    assert min(card.minutes, *card.steps.values(), *card.metrics.values()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_card_names_the_tasks_as_they_are(name: str, tmp_path: Path) -> None:
    """A changed task file needs a network that was trained on it, or a card that says that it was another."""
    card = read_card(shipped()[name])
    project = Project(tmp_path)
    assert {task: content_hash(project.task(task, scale=card.scale)) for task in card.tasks} == card.tasks


KDSRS = tuple(name for name in NAMES if isinstance(load_model(Path(name)), KDSR))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in KDSRS])
def test_a_shipped_network_restores(name: str) -> None:
    network = load_model(Path(name))
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    restored = image_restorer(network)(pixels)
    assert restored.shape == (24 * network.scale, 30 * network.scale, 3)
    assert np.abs(restored.mean((0, 1)) - pixels.mean((0, 1))).max() < 5


@pytest.mark.parametrize("name", KDSRS)
def test_a_shipped_kdsr_describes_and_restores_unless_it_is_a_teacher(name: str) -> None:
    network = load_model(Path(name))
    assert isinstance(network, KDSR)
    grain = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    lr = torch.stack([grain[0], torch.nn.functional.avg_pool2d(grain[1:], 5, 1, 2)[0]])
    hr = torch.nn.functional.interpolate(lr, scale_factor=network.scale) if network.privileged else None
    with torch.no_grad():
        told = network.describe(lr, hr)
    assert float((told[0] - told[1]).norm() / told.norm()) > 0.01  # noise is no blur
    if network.privileged:
        with pytest.raises(UserError, match="the network is a teacher"):
            image_restorer(network)
        assert "restores nothing" in read_card(shipped()[name]).purpose
        return
    with torch.no_grad():
        restored = network(lr)
    assert restored.shape == (2, 3, 24 * network.scale, 24 * network.scale)
    assert torch.isfinite(restored).all()


def test_names_are_for_what_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert network_hash(Path(NAMES[0])) == network_hash(shipped()[NAMES[0]])
    (tmp_path / NAMES[0]).mkdir()
    with pytest.raises(UserError, match="no such file"):
        load_model(Path(NAMES[0]))
    with pytest.raises(UserError, match=f"did you mean '{NAMES[0]}'"):
        load_model(Path(NAMES[0] + "x"))


def test_a_broken_card_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "folder", lambda: tmp_path)
    (tmp_path / "n.safetensors").write_bytes(b"")
    for text in (None, "{", json.dumps({"name": "n"})):
        if text is not None:
            (tmp_path / "n.json").write_text(text)
        with pytest.raises(UserError, match="is not a valid model card") as caught:
            read_card(module.shipped()["n"])
        assert len(caught.value.problems) == 1
        assert "\n" not in caught.value.problems[0]


@pytest.mark.parametrize(
    ("gains", "best"),
    [
        ({"a": {BICUBIC_LR: 0.9}, "b": {BICUBIC_LR: 1.1}, "c": {}}, "b"),
        ({"a": {BICUBIC_LR: 0.9, REAL_PAIRS: 0.2}, "b": {BICUBIC_LR: 1.1}, "c": {REAL_PAIRS: 0.3}}, "c"),
    ],
)
def test_the_network_of_the_highest_gain_on_real_pairs_is_recommended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gains: dict[str, dict[str, float]], best: str
) -> None:
    card = json.loads((shipped()[NAMES[0]].with_suffix(".json")).read_text())
    for name, own in gains.items():
        (tmp_path / f"{name}.safetensors").touch()
        (tmp_path / f"{name}.json").write_text(json.dumps({**card, "name": name, "gains": own}))
    monkeypatch.setattr(module, "folder", lambda: tmp_path)
    found = recommended(4)
    assert (found.name, found.file.name) == (best, f"{best}.safetensors")
    assert found.gain == gains[best][found.lr]
    assert recommended(4, (BICUBIC_LR,)).name == "b"
    with pytest.raises(UserError, match="no shipped network for scale 3 states a gain"):
        recommended(3)
