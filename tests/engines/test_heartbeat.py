"""Whoever holds up a step is named, and nobody else."""

from __future__ import annotations

from metarestore.engines.heartbeat import Heartbeat


def test_only_what_takes_much_longer_than_its_kind_is_told() -> None:
    lines: list[str] = []
    heartbeat = Heartbeat(lines.append)
    for _ in range(5):
        heartbeat.finished("gradient", 0, 3.0)
    heartbeat.waiting("adaptation", 0, 60.0, "worker 1")
    heartbeat.waiting("gradient", 1, 14.0, "worker 2: shard 2 of 4")
    assert lines == []
    heartbeat.waiting("gradient", 1, 16.0, "worker 2: shard 2 of 4")
    heartbeat.waiting("gradient", 1, 20.0, "worker 2: shard 2 of 4")
    assert lines == ["waiting 16 s for worker 2: shard 2 of 4, usually 3.0 s"]
    heartbeat.finished("gradient", 1, 33.0)
    heartbeat.waiting("gradient", 1, 16.0, "worker 2: shard 2 of 4")
    assert len(lines) == 2
