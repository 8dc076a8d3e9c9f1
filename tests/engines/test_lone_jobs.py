"""Jobs that need no study, e.g. photographs to be adapted to: the same bytes on any engine, whoever dies."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from metarestore.config.engine import RayEngineSpec
from metarestore.engines.engine import Engine
from metarestore.engines.local import LocalEngine
from metarestore.engines.ray import RayEngine
from metarestore.restoration.outcome import Failed
from metarestore.tasks.images import ImageSource, ImageStore, write_image
from metarestore.zero_shot.folder import RestoreJob
from metarestore.zero_shot.options import ZeroShotOptions

OPTIONS = ZeroShotOptions()
OPTIONS = replace(OPTIONS, teacher=replace(OPTIONS.teacher, steps=4), student=replace(OPTIONS.student, steps=2))


@pytest.fixture
def jobs(tmp_path: Path) -> list[RestoreJob]:
    """Three photographs, and a file that is none."""
    store = ImageStore.open(ImageSource.embedded("test"))
    paths = [tmp_path / f"{name}.png" for name in store.names[:3]]
    for path in paths:
        write_image(path, store.patch(path.stem, 40, 40, 64, 64))
    (tmp_path / "none.png").write_bytes(b"no picture")
    return [RestoreJob(path, 2, OPTIONS) for path in (*paths, tmp_path / "none.png")]


def results(engine: Engine, jobs: list[RestoreJob]) -> dict[int, bytes | Failed]:
    found: dict[int, bytes | Failed] = {}

    def receive(position: int, result: object) -> None:
        assert position not in found
        found[position] = result if isinstance(result, Failed) else result.pixels.tobytes()  # type: ignore[attr-defined]
        if isinstance(engine, RayEngine) and len(found) == 1:
            os.kill(engine.process_ids()[0], signal.SIGKILL)

    engine.each(jobs, receive)
    return found


def test_two_workers_of_which_one_is_killed_find_what_this_process_finds(cluster: None, jobs: list[RestoreJob]) -> None:
    here = results(LocalEngine(), jobs)
    assert sorted(here) == [0, 1, 2, 3]
    assert isinstance(here[3], Failed)
    assert len({here[k] for k in range(3)}) == 3
    with RayEngine(RayEngineSpec(kind="ray", workers=2)) as engine:
        assert results(engine, jobs) == here
