"""What every kind of task file must do. A new kind is one more row of `KINDS`."""

from __future__ import annotations

from metarestore.tasks.kinds import TASK_KINDS
from metarestore.testing import TaskFile, TaskKindContract

PIPELINE = "pipeline:\n  - {op: gaussian_blur, sigma: %s}\n  - {op: downsample}\n  - {op: gaussian_noise, sigma: 5}\n"

KINDS = {
    "synthetic": TaskFile("kind: synthetic\nscale: 4\n" + PIPELINE % "[0.4, 2]", "[0.4, 2]", "[0.4, 2.5]"),
    "protocol": TaskFile("kind: protocol\nscale: 4\n" + PIPELINE % "{choice: [1, 2]}", "[1, 2]", "[1, 2, 3]"),
    "pairs": TaskFile(
        "kind: pairs\nscale: 4\nlr: camera/lr\nhr: camera/hr\nsupport_pool: 3\n",
        "support_pool: 3",
        "support_pool: 2",
    ),
    "single_image": TaskFile(
        "kind: single_image\nscale: 4\nimage: camera/hr/a.png\nkernel: {task: blur_iso_wide}\nnoise: 1\n",
        "noise: 1",
        "noise: 2",
    ),
}
"""A task file of each kind, and a change to it that changes what it draws."""


class TestEveryKind(TaskKindContract):
    examples = KINDS


def test_every_kind_has_a_row() -> None:
    assert sorted(TASK_KINDS) == sorted(KINDS)
