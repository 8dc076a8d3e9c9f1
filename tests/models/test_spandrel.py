"""Networks of other projects, opened by spandrel: tiny random ones, and some of this package beside them."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.config.learner import FOMAMLSpec, MAMLSpec, PretrainSpec
from metarestore.config.model import SpandrelSpec
from metarestore.errors import UserError
from metarestore.learners.adaptation import adapt
from metarestore.learners.build import build_learner
from metarestore.learners.gradients import split_gradients
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learn2learn import reference_gradients
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, load_vector, save_model
from metarestore.models.network import Network
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.restore import image_restorer
from metarestore.models.spandrel_library import library, recognise
from metarestore.models.spandrel_network import SpandrelNetwork
from metarestore.tasks.photographs import write_image
from metarestore.tasks.task import Task
from metarestore.testing.foreign import FOREIGN, foreign_module, write_foreign
from metarestore.testing.networks import spec_of
from metarestore.training.identity import study_record

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("spandrel") is None, reason="spandrel is not installed"),
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),
]

Cli = Callable[..., tuple[int, str, str]]

OWN: dict[str, tuple[dict[str, Any], int]] = {
    "fsrcnn": ({"kind": "fsrcnn", "d": 8, "s": 4, "m": 1}, 3),
    "own compact": ({"kind": "compact"}, 4),
    "ecbsr": ({"kind": "ecbsr", "m": 1, "c": 4}, 2),
    "kdsr": ({"kind": "kdsr", "size": "tiny"}, 2),
    "zero_shot": ({"kind": "zero_shot", "preprocessing": 4}, 2),
}
"""Specification and scale of networks of this package, by name."""
INNER = InnerRule("l1", 0.0)


def opened_by_spandrel(file: Path) -> Any:
    return library(Path()).ModelLoader().load_from_file(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of every network."""
    folder = tmp_path_factory.mktemp("networks")
    for name in FOREIGN:
        write_foreign(name, folder / f"{name}.safetensors")
    for name, (example, scale) in OWN.items():
        spec = spec_of(example)
        save_model(folder / f"{name}.safetensors", spec, scale, initial_vector(build_model(spec, scale, 0)))
    return folder


def saved(name: str, source: Path, file: Path, network: Network, flat: Tensor) -> Network:
    """Saves a network with other parameters, and opens it again."""
    spec = spec_of(OWN[name][0]) if name in OWN else SpandrelSpec(kind="spandrel", path=source)
    save_model(file, spec, network.scale, flat)
    return load_model(file)


def images(network: Network, count: int = 2, side: int = 16) -> tuple[Tensor, Tensor]:
    rng, planes = torch.Generator().manual_seed(0), 1 if network.channels == "y" else 3
    lr = torch.rand(count, planes, side, side, generator=rng)
    return lr, torch.rand(count, planes, network.scale * side, network.scale * side, generator=rng)


@pytest.mark.parametrize("name", [*FOREIGN, *OWN])
def test_a_network_restores_adapts_and_is_saved(folder: Path, tmp_path: Path, name: str) -> None:
    source = folder / f"{name}.safetensors"
    network = load_model(source)
    for height, width in ((7, 11), (17, 13)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        assert image_restorer(network)(pixels).shape == (network.scale * height, network.scale * width, 3)
    lr, hr = images(network)
    flat = adapt(network, initial_vector(network), lr, hr, AdaptationOptimizerSpec(steps=3, lr=1e-3), rule=INNER)
    assert torch.isfinite(flat).all()
    if name in FOREIGN:  # every parameter has a gradient, except behind a normalisation of a single feature in this DAT
        moved = Layout.of(network).unflatten((flat - initial_vector(network)).abs())
        assert [key for key, change in moved.items() if not change.any() and ".attns." not in key] == []
    adapted = deepcopy(network)
    adapted.load_state_dict(Layout.of(network).unflatten(flat), strict=False)
    for copy in ("a", "b"):
        loaded = saved(name, source, tmp_path / f"{copy}.safetensors", network, flat)
        with torch.no_grad():
            assert torch.equal(loaded(lr), adapted(lr))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert torch.equal(initial_vector(loaded), flat)


@pytest.mark.parametrize("name", FOREIGN)
def test_spandrel_restores_the_same_before_and_after_adaptation(folder: Path, tmp_path: Path, name: str) -> None:
    source = folder / f"{name}.safetensors"
    network, reference = load_model(source), opened_by_spandrel(source)
    assert network.foreign == reference.architecture.name
    assert (network.scale, network.receptive_field) == (reference.scale, None)
    lr = torch.rand(1, 1 if network.channels == "y" else 3, 17, 13, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(lr).clamp(0, 1), reference(lr), rtol=1e-5, atol=1e-6)
        flat = initial_vector(network) * 1.01
        loaded = saved(name, source, tmp_path / "a.safetensors", network, flat)
        torch.testing.assert_close(loaded(lr).clamp(0, 1), opened_by_spandrel(tmp_path / "a.safetensors")(lr))
    assert load_file(tmp_path / "a.safetensors").keys() == reference.model.state_dict().keys()


LAST = {"esrgan": "model.10.", "compact": "body.6.", "span": "upsampler.0.", "swinir": "upsample.0.", "rcan": "tail."}
"""The last layer of some networks."""


@pytest.mark.parametrize("adapts", ["tail", "norms", {"lora": 2}], ids=str)
@pytest.mark.parametrize("name", FOREIGN)
def test_parts_of_it_adapt(folder: Path, name: str, adapts: Any) -> None:
    network = load_model(folder / f"{name}.safetensors")
    lr, hr = images(network)
    options = AdaptationOptimizerSpec(steps=2, lr=1e-2, adapts=adapts)
    if adapts == "norms" and not any("Norm" in type(module).__name__ for module in network.modules()):
        with pytest.raises(UserError, match="no normalisation layers"):
            adapt(network, initial_vector(network), lr, hr, options, rule=INNER)
        return
    before = initial_vector(network)
    moved = Layout.of(network).unflatten(adapt(network, before, lr, hr, options, rule=INNER) - before)
    changed = {key for key, difference in moved.items() if difference.any()}
    assert 0 < len(changed) < len(moved)
    if adapts == "tail" and name in LAST:
        assert all(key.startswith(f"inner.{LAST[name]}") for key in changed), changed


def test_it_keeps_the_low_frequencies_of_lr_when_it_is_opened_again(folder: Path, tmp_path: Path) -> None:
    source = folder / "span.safetensors"
    spec = SpandrelSpec(kind="spandrel", path=source, keep_low_frequencies="both")
    network = build_model(spec, 2, 0)
    lr, _ = images(network)
    save_model(tmp_path / "kept.safetensors", spec, 2, initial_vector(network))
    loaded = load_model(tmp_path / "kept.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(lr), network(lr))
        assert not torch.equal(loaded(lr), load_model(source)(lr))


@pytest.mark.parametrize("name", FOREIGN)
def test_an_image_is_restored_alike_alone_and_in_a_batch(folder: Path, name: str) -> None:
    network = load_model(folder / f"{name}.safetensors").train()  # the mode changes nothing
    lr = images(network)[0][..., :16, :11]
    before = lr.clone()
    with torch.no_grad():
        torch.testing.assert_close(network(lr), torch.cat([network(one[None]) for one in lr]), rtol=1e-4, atol=1e-5)
        assert torch.equal(network(lr), network.eval()(lr))
    assert torch.equal(lr, before)  # some architectures scale their input in place


@pytest.mark.parametrize("spec", [PretrainSpec(kind="pretrain"), FOMAMLSpec(kind="fomaml"), MAMLSpec(kind="maml")])
@pytest.mark.parametrize("name", FOREIGN)
def test_learners_train_it_vectorised_as_one_by_one(folder: Path, name: str, spec: Any) -> None:
    network = load_model(folder / f"{name}.safetensors")
    learner, layout = build_learner(spec, network, "float32"), Layout.of(network)
    lr, hr = images(network, count=4)
    tasks = Task(*(tensor.unflatten(0, (2, 2)) for tensor in (lr, hr, lr.flip(-1), hr.flip(-1))))
    tasks = Task(*(torch.stack([tensor[0], tensor[1]]) for tensor in tasks))
    together, single = (split_gradients(learner, layout, initial_vector(network), tasks, 0, size) for size in (2, 1))
    assert np.isfinite(together.gradients).all()
    scale = float(np.abs(single.gradients).max())
    assert np.abs(together.gradients - single.gradients).max() <= 2e-3 * scale


class Detached(Network):
    """A network of another project whose operations have no rule under vmap, with a parameter that it does not use."""

    foreign = "DITN"

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.channels = 2, "rgb"
        self.weight, self.unused = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    @property
    def receptive_field(self) -> None:
        return None

    def forward(self, lr: Tensor) -> Tensor:
        lr = lr * lr.data.norm() * self.weight
        return lr.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_operations_that_cannot_be_vectorised_are_named() -> None:
    network = Detached()
    learner, (lr, hr) = build_learner(FOMAMLSpec(kind="fomaml"), network, "float32"), images(network)
    tasks = Task(*(tensor[:, None] for tensor in (lr, hr, lr, hr)))
    text = r"model\.path: DITN does not support per-task gradients \(accessing `data`.*\); set training\.microbatch: 1"
    with pytest.raises(UserError, match=text):
        split_gradients(learner, Layout.of(network), initial_vector(network), tasks, 0, None)
    single = split_gradients(learner, Layout.of(network), initial_vector(network), tasks, 0, 1).gradients
    assert (single != 0).tolist() == [[True, False]] * 2
    reference = reference_gradients(learner, Layout.of(network), initial_vector(network), tasks)
    np.testing.assert_allclose(reference.gradients, single, rtol=1e-4)


def test_span_is_trained_merged_and_saved_in_full(folder: Path) -> None:
    network = load_model(folder / "span.safetensors")
    full = sum(value.numel() for value in load_file(folder / "span.safetensors").values())
    assert Layout.of(network).size < full / 4
    stored = network.stored(dict(network.named_parameters()))
    assert torch.equal(stored["conv_1.conv.0.weight"][:3, :, 0, 0], torch.eye(3))
    assert not stored["conv_1.sk.weight"].any()


def test_frozen_parameters_are_kept_and_saved(folder: Path) -> None:
    file = folder / "compact.safetensors"
    recognised = recognise(file, load_file(file))
    first = recognised.module.get_submodule("body.0")
    first.bias.requires_grad_(False)
    network = SpandrelNetwork(recognised)
    params = dict(network.named_parameters())
    assert "inner.body.0.weight" in params
    assert "inner.body.0.bias" not in params
    assert torch.equal(network.stored(params)["body.0.bias"], load_file(file)["body.0.bias"])


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".PTH"])
def test_files_of_torch_save_are_opened(folder: Path, tmp_path: Path, suffix: str) -> None:
    file = write_foreign("compact", tmp_path / f"compact{suffix}")
    assert torch.equal(initial_vector(load_model(file)), initial_vector(load_model(folder / "compact.safetensors")))


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit(99)",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"params": Hostile()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"params": Hostile()}))
    for name in ("zip", "plain"):
        with pytest.raises(UserError, match=rf"{name}\.pth: contains more than tensors and was not opened") as caught:
            load_model(tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged", b"plain text, not tensors"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pth: (cannot be read|contains more)") as caught:
        load_model(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("esrgan", {"scale": 1}, "upscales by 1, but metarestore by 2, 3 or 4"),
        ("esrgan", {"scale": 8}, "upscales by 8, but metarestore by 2, 3 or 4"),
        ("compact", {"num_in_ch": 4, "num_out_ch": 4}, "maps 4 channels to 4, instead of RGB to RGB"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path: Path, name: str, changes: dict[str, Any], text: str) -> None:
    file = write_foreign(name, tmp_path / "a.safetensors", **changes)
    with pytest.raises(UserError, match=rf"a\.safetensors: the network \(.*\) {text}.*; choose another file"):
        load_model(file)


def test_unknown_and_misleading_tensors_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "unknown.pth")
    tensors = foreign_module("span").state_dict()
    torch.save({**tensors, "block_1.c1_r.sk.weight": torch.zeros(3)}, tmp_path / "misleading.pth")
    torch.save({**tensors, "upsampler.0.weight": "text"}, tmp_path / "text.pth")
    expected = {
        "list": "contains a list instead of tensors by name",
        "unknown": "was not written by metarestore, and spandrel does not know its architecture",
        "misleading": "spandrel cannot open it",
        "text": "spandrel cannot open it",
    }
    for name, text in expected.items():
        with pytest.raises(UserError, match=rf"{name}\.pth: {text}") as caught:
            load_model(tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)


def test_a_file_that_could_not_be_opened_again_is_refused(tmp_path: Path) -> None:
    """spandrel renames the first layer of this variant of SwinIR, and then sees another number of channels."""
    options = {"start_unshuffle": 2, "upsampler": "nearest+conv", "upscale": 4}
    tensors = {key: value.clone() for key, value in foreign_module("swinir", **options).state_dict().items()}
    for part in ("weight", "bias"):
        tensors[f"conv_first.1.{part}"] = tensors.pop(f"conv_first.{part}")
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="has tensors that spandrel renames"):
        load_model(tmp_path / "a.safetensors")


def test_the_experiment_must_have_the_scale_of_the_file(folder: Path) -> None:
    file = folder / "compact.safetensors"
    assert build_model(SpandrelSpec(kind="spandrel", path=file), 3, seed=0).scale == 3
    with pytest.raises(UserError, match=r"model\.path: .* upscales by 3, but the experiment by 4; set scale: 3"):
        build_model(SpandrelSpec(kind="spandrel", path=file), 4, seed=0)
    with pytest.raises(UserError, match=r"model\.path: .*nowhere: no such file"):
        build_model(SpandrelSpec(kind="spandrel", path=Path("nowhere")), 4, seed=0)


def test_initialisation_by_another_network(folder: Path) -> None:
    def start(given: str) -> Tensor:
        spec = SpandrelSpec(kind="spandrel", path=folder / "esrgan.safetensors")
        fresh = build_model(spec, 4, seed=0)
        return load_vector(folder / f"{given}.safetensors", spec, 4, "training.init", fresh)

    assert torch.equal(start("esrgan"), initial_vector(load_model(folder / "esrgan.safetensors")))
    with pytest.raises(UserError, match=r"another architecture or size \(PLKSR\) than model\.path \(ESRGAN\)"):
        start("plksr")
    with pytest.raises(UserError, match="kind is compact, expected spandrel"):
        start("own compact")


def test_a_run_depends_on_the_content_of_the_file(
    tmp_path: Path, folder: Path, small_study: Callable[..., Any]
) -> None:
    def record(name: str, content: str) -> dict[str, Any]:
        (tmp_path / name).write_bytes((folder / f"{content}.safetensors").read_bytes())
        return study_record(small_study(model={"kind": "spandrel", "path": str(tmp_path / name)}))

    assert record("a.safetensors", "esrgan") == record("b.safetensors", "esrgan")
    assert record("a.safetensors", "esrgan") != record("a.safetensors", "plksr")


def test_without_spandrel_the_command_to_install_it_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UserError, match=r"esrgan\.safetensors: .*install it: pip install 'metarestore\[spandrel\]'"):
        load_model(folder / "esrgan.safetensors")


def test_the_command_line_does_not_import_spandrel() -> None:
    code = "import sys, metarestore.cli, metarestore.models.checkpoint, metarestore.config.experiment as _;"
    code += "print([name for name in ('spandrel', 'torchvision') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_commands_open_the_file_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(tmp_path)
    write_foreign("compact", tmp_path / "compact.pth", upscale=2)
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos/a.png", np.random.default_rng(0).integers(0, 256, (48, 50, 3), np.uint8))
    assert cli("restore", "photos/a.png", "--model", "compact.pth", "--out", "a.png")[0] == 0
    assert cli("evaluate", "--model", "compact.pth", "--scale", "2", "--data", "photos")[0] == 0
    code, _, err = cli("evaluate", "--model", "compact.pth", "--scale", "4", "--data", "photos")
    assert (code, "--scale: the network upscales by 2" in err) == (2, True)
    adapted = ("restore", "photos/a.png", "--adapt", "zero-shot", "--model", "compact.pth", "--steps", "1")
    assert cli(*adapted, "--out", "out")[0] == 0


def test_a_training_adapts_and_is_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    write_foreign("swinir", tmp_path / "swinir.pth")
    (tmp_path / "e.yaml").write_text(
        "scale: 4\n"
        "graph: {target: phone_camera, auxiliary: [bicubic, noise_gaussian], estimator: {kind: uniform}}\n"
        "model: {kind: spandrel, path: swinir.pth}\n"
        "learner: {kind: fomaml}\n"
        "training: {steps: 1, tasks_per_step: 2, shard_size: 2, support: 1, query: 1, patch: 32}\n"
        "adaptation: {shots: 2, shot_size: 64, steps: 1}\n"
        "evaluation: {crop: 64, crops: 1}\n"
        "engine: {kind: local}\n"
    )
    code, out, err = cli("train", "e.yaml", "--out", "run")
    assert code == 0, out + err
    (tmp_path / "swinir.pth").unlink()  # what the run has saved does not need it
    adapted = load_model(tmp_path / "run/adapted.safetensors")
    assert (adapted.foreign, adapted.scale) == ("SwinIR", 4)
    assert opened_by_spandrel(tmp_path / "run/model.safetensors").scale == 4
