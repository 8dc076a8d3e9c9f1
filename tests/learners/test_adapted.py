import pytest
import torch
from torch import nn

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.config.model import CompactSpec, ECBSRSpec, FSRCNNSpec, KDSRSpec, ZeroShotNetworkSpec
from metarestore.errors import UserError
from metarestore.learners.adaptation import adapt
from metarestore.learners.adapted import adapted, adapted_names
from metarestore.learners.inner_rule import InnerRule
from metarestore.models.build import build_model
from metarestore.models.parameters import Layout, initial_vector
from metarestore.project import resolve
from metarestore.workspace.workspace import Workspace

RULE = InnerRule("l1", 1e-3)
LAST = {
    "fsrcnn": (FSRCNNSpec(), "tail."),
    "compact": (CompactSpec(kind="compact"), "body.18."),
    "kdsr": (KDSRSpec(kind="kdsr", size="tiny"), "restorer.tail."),
    "ecbsr": (ECBSRSpec(kind="ecbsr"), "body.10."),
    "ecbsr, plain": (ECBSRSpec(kind="ecbsr", branches=False), "body.10."),
    "zero_shot": (ZeroShotNetworkSpec(kind="zero_shot"), "refiner.trunk.7."),
}


class Normalised(nn.Module):
    channels = "rgb"

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.last = nn.Conv2d(4, 12, 3, padding=1)

    def forward(self, lr):
        return nn.functional.pixel_shuffle(self.last(self.norm(self.first(lr)).relu()), 2)


def moved(model, options, rule=RULE, steps=2):
    torch.manual_seed(0)
    planes = 1 if model.channels == "y" else 3
    scale = getattr(model, "scale", 2)
    lr, hr = torch.rand(2, planes, 12, 12), torch.rand(2, planes, 12 * scale, 12 * scale)
    flat = initial_vector(model)
    given = AdaptationOptimizerSpec(**{"steps": steps, "lr": 1e-2, **options})
    layout = Layout.of(model)
    after = layout.unflatten(adapt(model, flat, lr, hr, given, rule=rule))
    before = layout.unflatten(flat)
    return {name: after[name] - before[name] for name in after}


def changed(differences):
    return {name for name, difference in differences.items() if difference.abs().max() > 0}


@pytest.mark.parametrize("kind", LAST)
def test_the_last_layer(kind):
    spec, prefix = LAST[kind]
    model = build_model(spec, 4, seed=0)
    names = {name for name, _ in model.named_parameters() if name.startswith(prefix)}
    assert names
    assert adapted_names(model, "tail") == names


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_only_the_last_layer_changes(optimizer):
    model = build_model(FSRCNNSpec(), 4, seed=0)
    assert changed(moved(model, {"adapts": "tail", "optimizer": optimizer})) == {"tail.weight", "tail.bias"}


def test_normalisation_layers():
    assert changed(moved(Normalised(), {"adapts": "norms"})) == {"norm.weight", "norm.bias"}


def test_a_network_without_normalisation_layers_is_refused():
    with pytest.raises(UserError, match=r"adaptation\.adapts: norms, but the network has no normalisation layers"):
        adapted_names(build_model(FSRCNNSpec(), 4, seed=0), "norms")


def test_patterns():
    assert changed(moved(Normalised(), {"adapts": ("first.*",)})) == {"first.weight", "first.bias"}
    with pytest.raises(UserError, match=r"adaptation\.adapts: 'frist\.\*' matches no parameter"):
        adapted_names(Normalised(), ("frist.*",))


def test_all_is_the_ordinary_adaptation():
    model = Normalised()
    torch.manual_seed(0)
    lr, hr = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 24, 24)
    options = AdaptationOptimizerSpec(steps=1, lr=0.1, optimizer="sgd")
    after = adapt(model, initial_vector(model), lr, hr, options, rule=RULE)
    nn.functional.l1_loss(model(lr), hr).backward()
    gradient = Layout.of(model).flatten({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(after, initial_vector(model) - 0.1 * gradient)


@pytest.mark.parametrize("rank", [1, 2, 100])
def test_changes_have_at_most_the_given_rank(rank):
    differences = moved(Normalised(), {"adapts": {"lora": rank}}, steps=3)
    assert changed(differences) == {"first.weight", "last.weight"}
    for name in ("first.weight", "last.weight"):
        matrix = differences[name].flatten(1).double()
        assert torch.linalg.matrix_rank(matrix, atol=1e-5) <= rank


def test_low_rank_changes_start_at_zero_and_follow_the_gradient():
    model = Normalised()
    flat = initial_vector(model)
    what = adapted(model, flat, AdaptationOptimizerSpec(adapts={"lora": 2}), RULE, seed=0)
    torch.testing.assert_close(what.parameters(what.initial), flat)
    values = what.initial.requires_grad_()
    direction = torch.randn(len(flat), generator=torch.Generator().manual_seed(0))
    (what.parameters(values) @ direction).backward()
    # d(BA)/dB = G·Aᵀ, and B is 0, so A has no gradient yet.
    (start, outputs, inputs), *_ = what.weights
    a = what.initial[outputs * 2 : (outputs + inputs) * 2].view(2, inputs).detach()
    g = direction[start : start + outputs * inputs].view(outputs, inputs)
    torch.testing.assert_close(values.grad[: outputs * 2].view(outputs, 2), g @ a.T)
    assert values.grad[outputs * 2 : (outputs + inputs) * 2].abs().max() == 0


def test_parameters_that_the_learner_fixes_stay_fixed():
    model = Normalised()
    layout = Layout.of(model)
    ones = {name: torch.full(shape, float(name.startswith("first"))) for name, shape in layout.entries}
    rule = InnerRule("l1", 1e-3, mask=layout.flatten(ones))
    assert changed(moved(model, {"adapts": {"lora": 2}}, rule, steps=3)) == {"first.weight"}
    assert changed(moved(model, {"adapts": ("last.*", "first.bias")}, rule)) == {"first.bias"}


@pytest.mark.parametrize("adapts", ["norms", ("nothing.*",)], ids=str)
def test_what_cannot_adapt_is_found_before_the_training(small_experiment, tmp_path, adapts):
    experiment = small_experiment(adaptation={"steps": 1, "alternatives": [{"adapts": adapts}]})
    workspace = Workspace(resolve(experiment, tmp_path))
    with pytest.raises(UserError, match=r"adaptation\.alternatives\[0\]\.adapts: "):
        workspace.open_all()


def test_learned_rates_do_not_go_with_low_rank_changes(small_experiment):
    with pytest.raises(ValueError, match="meta_sgd learned rates for"):
        small_experiment(learner={"kind": "meta_sgd"}, adaptation={"optimizer": "sgd", "adapts": {"lora": 2}})
