"""The command `export`: what it writes, and what it refuses."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metarestore.models.build import build_model
from metarestore.models.checkpoint import save_model
from metarestore.models.parameters import initial_vector
from metarestore.testing.networks import spec_of

Cli = Callable[..., tuple[int, str, str]]

CONFIG = """
data: photos
graph: {target: camera, auxiliary: [bicubic, jpeg]}
learner: {kind: fomaml}
training: {steps: 7, init: fsrcnn_pisr_x4}
adaptation: {shots: 5, steps: 9}
"""
RESULTS = {
    "bicubic": {"psnr_y": [20.0, 30.0]},
    "weak": {"psnr_y": [20.5, 30.0], "psnr_y_by_step": [25.0, 25.25]},
    "strong": {"psnr_y": [22.0, 31.0], "psnr_y_by_step": [26.0, 26.5]},
}


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished study of two arms, as the current folder."""
    monkeypatch.chdir(tmp_path)
    spec = spec_of({"kind": "fsrcnn", "d": 4, "s": 2, "m": 1})
    flat = initial_vector(build_model(spec, 2, 0))
    for arm in ("weak", "strong"):
        for name in ("model", "adapted"):
            save_model(tmp_path / f"study/arms/{arm}/{name}.safetensors", spec, 2, flat)
        (tmp_path / f"study/arms/{arm}/config.yaml").write_text(CONFIG)
    (tmp_path / "study/results.json").write_text(json.dumps({"arms": RESULTS}))


def card(file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(f"{file}.json").read_text())
    return content


def test_the_best_arm_is_exported_with_its_training_and_gain(cli: Cli) -> None:
    code, out, err = cli("export", "study", "--to", "torch", "--out", "a.pt2")
    assert (code, err) == (0, "")
    assert "Network: the adapted network of arm 'strong' of study" in out
    assert "a.pt2: x2, differs by" in out
    written = card("a.pt2")
    assert written["name"] == "strong"
    assert written["measured"] == {"gain_psnr_y_db": 1.5, "photographs": 2, "on": "test photographs of the target"}
    assert written["trained_on"]["target"] == "camera"
    assert written["trained_on"]["adapted_to"] == {"shots": 5, "steps": 9}
    assert "of fsrcnn_pisr_x4: research use" in written["licence_of_data"]
    source = Path("study/arms/strong/adapted.safetensors").read_bytes()
    assert written["source"] == {"file": "adapted.safetensors", "sha256": hashlib.sha256(source).hexdigest()}
    assert written["sha256"] == hashlib.sha256(Path("a.pt2").read_bytes()).hexdigest()
    assert written["least_size"] == 4
    assert cli("export", "study", "--to", "torch", "--out", "a.pt2")[0] == 2
    given = ("--arm", "weak", "--weights", "unadapted", "--overwrite")
    assert cli("export", "study", "--to", "torch", "--out", "a.pt2", *given)[0] == 0
    assert card("a.pt2")["measured"]["gain_psnr_y_db"] == 0
    assert "adapted_to" not in card("a.pt2")["trained_on"]


def test_a_file_without_a_run_has_a_card(cli: Cli) -> None:
    Path("alone.safetensors").write_bytes(Path("study/arms/weak/model.safetensors").read_bytes())
    assert cli("export", "alone.safetensors", "--to", "torch", "--out", "a.pt2")[0] == 0
    assert (card("a.pt2")["name"], card("a.pt2")["trained_on"], card("a.pt2")["measured"]) == ("alone", None, None)


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "another ending": (("study", "--to", "onnx", "--out", "a.pt"), "--out: a.pt must end in .onnx"),
    "no folder": (("study", "--to", "onnx", "--out", "no/a.onnx"), "--out: no/a.onnx cannot be written"),
    "no network": (("studdy", "--to", "torch", "--out", "a.pt2"), "studdy: no such file"),
    "no arm": (("study", "--arm", "stong", "--to", "torch", "--out", "a.pt2"), "did you mean 'strong'?"),
    "the network itself": (
        ("one.safetensors", "--to", "spandrel", "--out", "one.safetensors", "--overwrite"),
        "is the network itself",
    ),
    "no such architecture": (("one.safetensors", "--to", "spandrel", "--out", "a.safetensors"), "use --to onnx"),
    "no descriptors": (("study", "--to", "torch", "--out", "a.pt2", "--embedding", "d.json"), "d.json: cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(cli: Cli, mistake: str) -> None:
    Path("one.safetensors").write_bytes(Path("study/arms/weak/model.safetensors").read_bytes())
    before = sorted(Path().rglob("*"))
    words, text = MISTAKES[mistake]
    code, out, err = cli("export", *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert text in err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="the extra onnx is not installed")
def test_nothing_but_the_results_is_printed(cli: Cli) -> None:
    code, out, err = cli("export", "study", "--to", "onnx", "--half", "--out", "a.onnx")
    assert (code, err, len(out.splitlines())) == (0, "", 3)
