import torch

from metarestore.degradations.dihedral import flip_rotate
from metarestore.models.low_frequencies import keep_low_frequencies
from metarestore.project import resolve
from metarestore.workspace.refs import TaskRef
from metarestore.workspace.workspace import Workspace


def opened(small_experiment, tmp_path, **model):
    experiment = small_experiment(model={"kind": "fsrcnn", "channels": "rgb", **model})
    return Workspace(resolve(experiment, tmp_path))


def test_hr_that_is_learned_from_gets_the_low_frequencies_of_lr(small_experiment, tmp_path):
    plain, kept = (opened(small_experiment, tmp_path, **keys) for keys in ({}, {"keep_low_frequencies": "hr"}))
    refs = [TaskRef(next(iter(plain.study.auxiliary)), 0, 0)]
    for before, after in ((plain.tasks(refs), kept.tasks(refs)),):
        for lr, hr, other_lr, other_hr in (
            (before.support_lr, before.support_hr, after.support_lr, after.support_hr),
            (before.query_lr, before.query_hr, after.query_lr, after.query_hr),
        ):
            torch.testing.assert_close(other_lr, lr)
            torch.testing.assert_close(other_hr[0], keep_low_frequencies(hr[0], lr[0], plain.study.scale))
    torch.testing.assert_close(
        kept.shots.support_hr,
        keep_low_frequencies(plain.shots.support_hr, plain.shots.support_lr, plain.study.scale),
    )
    torch.testing.assert_close(kept.target_task.query_hr, plain.target_task.query_hr)  # metrics see the truth
    assert not kept.model.keeps_low_frequencies


def test_with_both_the_network_has_them_too(small_experiment, tmp_path):
    workspace = opened(small_experiment, tmp_path, keep_low_frequencies="both")
    assert workspace.model.keeps_low_frequencies


def test_patches_of_the_shots_are_corrected_once_as_parts_of_whole_shots(small_experiment, tmp_path):
    workspace = opened(small_experiment, tmp_path, keep_low_frequencies="hr")
    target = workspace.experiment.graph.target
    ref = TaskRef(target, 0, 0)
    draw = workspace.distribution(target).draw(ref.seed, ref.index, ref.patches)
    for built, given in zip(workspace.tasks([ref]), workspace.distribution(target).build(draw), strict=True):
        torch.testing.assert_close(built[0], given)
    patch = draw.support[0]
    top, left, height, width = patch.box
    shot = workspace.shots.support_hr[int(patch.image)][:, top : top + height, left : left + width]
    torch.testing.assert_close(workspace.tasks([ref]).support_hr[0, 0], flip_rotate(shot, patch.turn))
