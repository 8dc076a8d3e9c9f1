"""Every command and every file that the README shows works as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from metarestore.project import read_experiment, read_task

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()

SHORT = ["--set", "training.steps=2", "--set", "adaptation.steps=2"]
EXTRA = {**dict.fromkeys(("train", "compare", "tune", "ablate"), SHORT), "adapt": ["--minutes", "0.2"]}
"""Added to commands that train, so that they take seconds; everything else about them is as written."""

FURTHER = """
metarestore evaluate --bicubic --data samples/hr --scale 4 --json bicubic.json
metarestore evaluate --bicubic --data samples/hr --protocol gaussian8
metarestore evaluate --bicubic --lr samples/lr --hr samples/hr
metarestore tasks sample --replay samples/params.jsonl --out again
metarestore tasks preview night_phone --sweep poisson_noise.peak --out strip.png
metarestore tasks fit --pairs samples --out tasks/my_camera_fitted.yaml
metarestore tasks preview my_camera_fitted --out fitted.png
metarestore restore samples/lr/000000.png --model runs/first --self-ensemble --out ensemble.png
metarestore restore samples/lr/000000.png --model kdsr_tiny_mixed --out blind.png
metarestore describe --model kdsr_tiny_mixed --images samples/lr --task 'blur_*' --out d.json --figure map.png
metarestore train runs/search/best.yaml --out runs/best
"""
"""Commands that continue those of the README, with the files that they wrote."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_the_first_two_commands_set_everything_up() -> None:
    assert commands()[:2] == ["make demo", "make test"]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for line in commands() if line.startswith("make ")}
    assert named <= targets
    assert {"demo", "test", "setup", "check", "bench", "docs"} <= targets


@pytest.mark.xdist_group("ray")
def test_every_command(tmp_path: Path, mlflow_store: str) -> None:
    """Runs the README's commands one after the other, in an empty folder, as a reader would."""
    here = tmp_path
    shown = [line for line in commands() if line.startswith(("metarestore ", "cd "))]
    shown += FURTHER.strip().splitlines()
    assert len(shown) >= 8
    for line in shown:
        if line.startswith("cd "):
            here /= line.split()[1]
            continue
        if line.startswith(("mlflow ", "metarestore demo")):
            continue  # a server; and the demo has a test of its own
        words = shlex.split(line)[1:]
        extra = EXTRA.get(words[0], [])
        done = subprocess.run(
            [sys.executable, "-m", "metarestore", *words, *extra],
            cwd=here,
            env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_store},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_every_yaml_block(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    found = blocks("yaml")
    assert found
    for text in found:
        path = tmp_path / "tasks/block.yaml"
        path.write_text(text)
        if "pipeline:" in text:
            read_task(path)
        elif "learner:" in text:
            read_experiment(path)
        else:
            raise AssertionError(f"no test knows this block:\n{text}")


@pytest.mark.xdist_group("ray")
def test_the_demo_with_few_steps(tmp_path: Path, mlflow_store: str) -> None:
    """All arms of the demo, on Ray, as shipped but for the number of steps."""
    import json

    text = (REPOSITORY / "experiments/demo.yaml").read_text()
    path = tmp_path / "experiments/demo.yaml"
    path.parent.mkdir()
    path.write_text(re.sub(r"steps: \d+", "steps: 3", text))
    (tmp_path / "graphs").symlink_to(REPOSITORY / "graphs")
    done = subprocess.run(
        [sys.executable, "-m", "metarestore", "compare", str(path), "--json", "demo.json"],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_store},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "demo.json").read_text())
    arms = ["target_only", *(f"{kind}" for kind in ("pretrain_uniform", "pretrain_weighted"))]
    arms += ["maml_uniform", "maml_weighted", "maml_inverted"]
    assert list(figures["arms"]) == ["bicubic", *arms]
    assert set(figures) >= {"arms", "weights", "effective_tasks", "seconds"}
    for arm in figures["arms"].values():
        assert len(arm["psnr_y"]) == len(arm["ssim_y"]) == 5
