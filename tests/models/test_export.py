"""Exported networks restore as the originals: every kind of network, in every format that can hold it."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from metarestore.errors import UserError
from metarestore.models import kdsr
from metarestore.models.build import build_model, restore_rgb
from metarestore.models.checkpoint import load_model, save_model
from metarestore.models.compact import Compact
from metarestore.models.exporting.export import Export, export_network
from metarestore.models.exporting.graph import Graph
from metarestore.models.exporting.onnx_file import onnx_restore
from metarestore.models.exporting.program import TOLERANCE, agreement, torch_restore
from metarestore.models.kdsr import KDSR
from metarestore.models.network import Network
from metarestore.models.parameters import initial_vector
from metarestore.models.spandrel_library import library
from metarestore.testing.foreign import FOREIGN, write_foreign
from metarestore.testing.networks import spec_of

pytestmark = [
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("spandrel", "onnx", "onnxscript", "onnxruntime")),
        reason="the extras onnx and spandrel are not installed",
    ),
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),
]

Graphs = Callable[[str], tuple[Network, Path]]

SMALL = {"kind": "fsrcnn", "d": 8, "s": 4, "m": 1}
OWN: dict[str, tuple[dict[str, Any], int]] = {
    "fsrcnn": (SMALL, 2),
    "fsrcnn, rgb": ({**SMALL, "channels": "rgb", "residual": "none", "prelu": "per_layer"}, 3),
    "fsrcnn, low frequencies": ({**SMALL, "keep_low_frequencies": "both"}, 4),
    "kdsr": ({"kind": "kdsr", "size": "tiny"}, 4),
    "kdsr, no encoder": ({"kind": "kdsr", "size": "tiny", "estimator": "none"}, 3),
    "compact": ({"kind": "compact"}, 4),
    "compact, luma": ({"kind": "compact", "channels": "y", "keep_low_frequencies": "both"}, 2),
    "ecbsr": ({"kind": "ecbsr", "m": 1, "c": 4}, 2),
    "zero_shot": ({"kind": "zero_shot", "preprocessing": 4}, 2),
}
"""Specification and scale of networks of this package, by name."""
SLOW = pytest.mark.skipif("METARESTORE_SLOW" not in os.environ, reason="takes 20 s; set METARESTORE_SLOW to run it")
SIZES = ((4, 4), (7, 5), (31, 64), (50, 33))


@pytest.fixture(scope="module", autouse=True)
def _few_blocks() -> Iterator[None]:
    """Makes KDSR small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kdsr.SIZES, "tiny", kdsr.Size(16, 2, 1))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of every network, with random weights that change their output."""
    folder = tmp_path_factory.mktemp("networks")
    for name in FOREIGN:
        write_foreign(name, folder / f"foreign {name}.safetensors")
    for name, (example, scale) in OWN.items():
        spec = spec_of(example)
        flat = initial_vector(build_model(spec, scale, 0))
        noise = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
        save_model(folder / f"{name}.safetensors", spec, scale, flat + 0.01 * noise)
    return folder


def exported(folder: Path, name: str, out: Path, **options: Any) -> tuple[Network, float]:
    source = folder / f"{name}.safetensors"
    network = load_model(source)
    kind = {".onnx": "onnx", ".pt2": "torch", ".safetensors": "spandrel"}[out.suffix]
    return network, export_network(network, Export(source, out, kind, **options)).error  # type: ignore[arg-type]


def greatest_difference(
    network: Network, restore: Callable[[Tensor], Tensor], embedding: Tensor | None = None
) -> float:
    part = partial(network, embedding=embedding) if isinstance(network, KDSR) else network
    rng = torch.Generator().manual_seed(2)
    differences = []
    for size in SIZES:
        lr = torch.rand(1, 3, *(max(side, network.least) for side in size), generator=rng)
        expected = restore_rgb(part, lr, scale=network.scale, channels=network.channels)
        differences.append(float((restore(lr) - expected).abs().max()))
    return max(differences)


@pytest.fixture(scope="module")
def graphs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """Exports networks to ONNX, each once."""
    out = tmp_path_factory.mktemp("graphs")

    @cache
    def graph(name: str) -> tuple[Network, Path]:
        network, error = exported(folder, name, out / f"{name}.onnx")
        assert error <= TOLERANCE
        return network, out / f"{name}.onnx"

    return graph


@pytest.mark.parametrize(
    "name", [*OWN, *(pytest.param(f"foreign {name}", marks=SLOW if name == "dat" else ()) for name in FOREIGN)]
)
def test_onnx_runtime_restores_the_same(graphs: Graphs, name: str) -> None:
    network, out = graphs(name)
    assert greatest_difference(network, onnx_restore(out.read_bytes())) <= TOLERANCE


@pytest.mark.parametrize("name", ["fsrcnn", "fsrcnn, low frequencies", "kdsr", "foreign esrgan, unshuffled"])
def test_a_program_of_torch_restores_the_same(folder: Path, tmp_path: Path, name: str) -> None:
    network, error = exported(folder, name, tmp_path / "a.pt2")
    assert error <= TOLERANCE
    assert greatest_difference(network, torch_restore((tmp_path / "a.pt2").read_bytes())) <= TOLERANCE


def test_a_graph_has_free_sizes_and_no_paths_of_this_machine(folder: Path, tmp_path: Path, graphs: Graphs) -> None:
    import onnx

    out = graphs("fsrcnn")[1]
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)

    def shape(value: Any) -> list[Any]:
        return [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]

    assert [shape(value) for value in model.graph.input] == [[1, 3, "height", "width"]]
    assert [shape(value) for value in model.graph.output] == [[1, 3, "2*height", "2*width"]]
    assert [one.version for one in model.opset_import if one.domain == ""] == [18]
    exported(folder, "fsrcnn", tmp_path / "a.pt2")
    for file in (out, tmp_path / "a.pt2"):
        assert os.fsencode(Path(__file__).parents[2]) not in file.read_bytes()


def test_a_kdsr_is_folded_at_an_embedding(folder: Path, tmp_path: Path) -> None:
    import onnx

    embedding = torch.rand(1, 16, generator=torch.Generator().manual_seed(0))
    network, _ = exported(folder, "kdsr", tmp_path / "a.onnx", embedding=embedding)
    assert greatest_difference(network, onnx_restore((tmp_path / "a.onnx").read_bytes()), embedding) <= TOLERANCE
    graph = onnx.load(tmp_path / "a.onnx").graph
    constants = {one.name for one in graph.initializer}
    depthwise = [node for node in graph.node if any(one.name == "group" and one.i == 16 for one in node.attribute)]
    assert [node.op_type for node in depthwise] == ["Conv"] * 2
    assert all(node.input[1] in constants for node in depthwise)


def test_branches_are_folded(folder: Path, tmp_path: Path) -> None:
    network, _ = exported(folder, "ecbsr", tmp_path / "a.pt2")
    card = json.loads((tmp_path / "a.pt2.json").read_text())
    assert card["stored_values"] < card["parameters"] == sum(one.numel() for one in network.parameters())


@pytest.mark.parametrize("name", ["fsrcnn, low frequencies", "foreign span"])
def test_16_bit_weights_differ_by_what_is_measured(folder: Path, tmp_path: Path, graphs: Graphs, name: str) -> None:
    _, error = exported(folder, name, tmp_path / "half.onnx", half=True)
    assert TOLERANCE < error < 0.02
    assert (tmp_path / "half.onnx").stat().st_size < 0.9 * graphs(name)[1].stat().st_size
    assert json.loads((tmp_path / "half.onnx.json").read_text())["difference"]["greatest_absolute"] == error
    assert onnx_restore((tmp_path / "half.onnx").read_bytes())(torch.rand(1, 3, 9, 8)).dtype == torch.float32


@pytest.mark.parametrize("name", ["compact", *(f"foreign {name}" for name in FOREIGN)])
def test_spandrel_opens_the_weights(folder: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "a.safetensors"
    network, error = exported(folder, name, out)
    loaded = library(out).ModelLoader().load_from_file(out)
    assert loaded.scale == network.scale
    lr = torch.rand(1, 1 if network.channels == "y" else 3, 17, 19, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(lr.clone()), network(lr).clamp(0, 1), rtol=0, atol=TOLERANCE
        )  # RCAN works in place
    assert error <= TOLERANCE
    with safe_open(out, framework="pt") as stored:
        assert not stored.metadata()
    exported(folder, name, tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.9 * out.stat().st_size


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fsrcnn", "spandrel knows no architecture FSRCNN, .*; use --to onnx"),
        ("kdsr", "spandrel knows no architecture KDSR"),
        ("compact, luma", r"keep_low_frequencies: both.*adapt with model: \{keep_low_frequencies: hr\}"),
    ],
)
def test_what_weights_alone_cannot_hold_is_refused(folder: Path, tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(UserError, match=text) as caught:
        exported(folder, name, tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_is_refused(tmp_path: Path) -> None:
    spec = spec_of({"kind": "pisr_teacher"})
    save_model(tmp_path / "t.safetensors", spec, 2, initial_vector(build_model(spec, 2, 0)))
    with pytest.raises(UserError, match=r"is a teacher, .* export a student"):
        exported(tmp_path, "t", tmp_path / "a.onnx")


class Branching(Compact):
    """A network whose computation depends on the image."""

    def forward(self, lr: Tensor) -> Tensor:
        restored = super().forward(lr)
        return restored if lr.mean() > 0.5 else -restored


class Uneven(Compact):
    """A network whose computation depends on the size of the image."""

    def forward(self, lr: Tensor) -> Tensor:
        return super().forward(lr) + (0.25 if lr.shape[-1] % 4 == 1 else 0.0)


@pytest.mark.parametrize(("kind", "foreign"), [(Branching, None), (Uneven, None), (Branching, "other")])
def test_what_cannot_be_captured_is_refused_in_one_line(
    folder: Path, tmp_path: Path, kind: type[Compact], foreign: str | None
) -> None:
    network = kind(2, "superultracompact", "rgb").eval()
    network.foreign = foreign
    with pytest.raises(
        UserError, match=r"compact\.safetensors: the network cannot be captured for images of any"
    ) as caught:
        export_network(network, Export(folder / "compact.safetensors", tmp_path / "a.pt2", "torch"))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_network_that_branches_on_sizes_is_checked(folder: Path, tmp_path: Path) -> None:
    network = Uneven(2, "superultracompact", "rgb").eval()
    network.foreign = "other"
    with pytest.raises(UserError, match=r"restores an image of 4x5 pixels differently"):
        export_network(network, Export(folder / "compact.safetensors", tmp_path / "a.pt2", "torch"))


def test_what_onnx_runtime_refuses_is_an_error_of_one_line(folder: Path, graphs: Graphs) -> None:
    with pytest.raises(UserError, match=r"ONNX Runtime does not accept the graph \(.*\); try --to torch"):
        onnx_restore(b"no graph")
    network, out = graphs("fsrcnn")
    restore = onnx_restore(out.read_bytes())
    with pytest.raises(UserError, match=r"fails on an image of 4x5 pixels \(.*\); restore with metarestore") as caught:
        agreement(Graph(network), lambda lr: restore(lr[0]), half=False)
    assert "\n" not in str(caught.value)


def test_a_wrong_graph_is_not_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = lambda content: lambda lr: onnx_restore(content)(lr) + 1e-3  # noqa: E731
    monkeypatch.setattr("metarestore.models.exporting.export.onnx_restore", wrong)
    with pytest.raises(UserError, match=r"restores an image of 4x5 pixels differently, by 0\.001"):
        exported(folder, "fsrcnn", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_the_command_to_install_it_is_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript .*; install it: pip install 'metarestore\[onnx\]'"):
        exported(folder, "fsrcnn", tmp_path / "a.onnx")
