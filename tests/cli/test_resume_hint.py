"""What a user is told while and after something runs: how it is continued, and how much is left."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from metarestore.cli.runs import resume_command
from metarestore.config.experiment import TrainingSpec
from metarestore.reports.study.progress import TimeLeft


@pytest.mark.parametrize("folder", ["runs/a", "my run", "it's", "-dash", "50% #1?", "日本"])
@pytest.mark.parametrize("given", [["--out", "x"], ["--out=x", "--resume"], []])
def test_the_hint_is_the_whole_command_and_survives_a_shell(folder: str, given: list[str]) -> None:
    arguments = ["train", "experiments/my e.yaml", "training.steps=8", *given]
    words = shlex.split(resume_command(arguments, Path(folder)))
    assert words[:4] == ["metarestore", *arguments[:3]]
    assert words[-1] == "--resume"
    assert words.count("--resume") == 1
    assert " ".join(words[4:-1]).replace("--out=", "--out ") == f"--out {folder}"


def test_the_time_left_counts_all_arms() -> None:
    now = [0.0]
    left = TimeLeft({name: TrainingSpec(steps=10, tasks_per_step=4) for name in "abc"}, lambda: now[0])
    assert left.seconds("a", 0) is None
    left.begin()
    left.measured(4.0)
    assert left.seconds("a", 20) == pytest.approx(5 + 10 + 10)
    now[0] = 15.0
    left.end(training_seconds=10.0)
    assert left.seconds("a", 40) == pytest.approx(2 * (10 + 5))
