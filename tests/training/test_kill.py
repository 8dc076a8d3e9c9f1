"""A driver that is killed at any moment and resumed ends with the same bytes."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metarestore.workspace.study import Study

# In the group of the Ray tests only to be run one after the other with them: both fill the cores.
pytestmark = pytest.mark.xdist_group("ray")

DRIVER = """
import pickle, sys
from pathlib import Path
from unittest.mock import Mock
from metarestore.engines.local import LocalEngine
from metarestore.workspace.workspace import Workspace
from metarestore.training.run import RunFolder, train
study, folder = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
with LocalEngine() as engine:
    run = RunFolder(folder, study, resume=folder.exists())
    train(Workspace(study), run, engine.session(study), Mock())
"""


def start(study: Path, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(study), str(folder)], stderr=subprocess.PIPE)


def finish(study: Path, folder: Path) -> bytes:
    process = start(study, folder)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("learner", ["fomaml", "maml"])
def test_three_kills_of_the_driver_change_nothing(
    small_study: Callable[..., Study], tmp_path: Path, learner: str
) -> None:
    study = tmp_path / "study.pickle"
    training = {"steps": 60, "checkpoint_every": 1, "keep": 2}
    study.write_bytes(pickle.dumps(small_study(learner={"kind": learner}, training=training)))
    rng, folder = random.Random(0), tmp_path / "parts"
    reached = []
    for goal in (5, 20, 40):
        process = start(study, folder)
        deadline = time.monotonic() + 60
        while last_step(folder) < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        # Anywhere in a step: in its tasks, its gradient, or the writing of its checkpoint.
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the driver had ended already"
        reached.append(last_step(folder))
    assert 5 <= reached[0] < reached[1] < reached[2] <= 60
    assert finish(study, folder) == finish(study, tmp_path / "whole")


def last_step(folder: Path) -> int:
    found = [int(path.name.split(".")[0]) for path in (folder / "checkpoints").glob("*.state.json")]
    return max(found, default=0)
