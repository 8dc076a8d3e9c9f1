"""Creates a new project: the smallest complete study, as a starting point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from metarestore.errors import UserError
from metarestore.files import write_atomically

_TASK = """\
# yaml-language-server: $schema=../schemas/task.json
# A phone at night: a soft lens, photon noise and JPEG compression. Parameters are drawn once per task.
# Preview:  metarestore tasks preview night_phone
kind: synthetic
scale: 4
pipeline:
  - {op: gaussian_blur, sigma: [0.8, 2.0], ratio: [1, 2], angle: [0, 180]}
  - {op: downsample, method: bicubic}
  - {op: poisson_noise, peak: {log_uniform: [30, 300]}}
  - {op: jpeg, quality: [40, 90], probability: 0.7}
"""

_GRAPH = """\
# yaml-language-server: $schema=../schemas/graph.json
# Relates distributions of the catalogue to the phone at night, estimated from its few pairs.
# List:  metarestore tasks list
target: night_phone
auxiliary: [bicubic, blur_*, noise_*, jpeg]
estimator: {kind: response, draws: 8}
weights: {rule: softmax, temperature: 0.5}
"""

_EXPERIMENT = """\
# yaml-language-server: $schema=../schemas/experiment.json
# Learns x4 restoration from the catalogue's degradations, then adapts to five pairs of the phone at night.
# Run:      metarestore train experiments/first.yaml
# Compare:  metarestore compare experiments/first.yaml     (trains every arm: does the relation graph help?)
# Tune:     metarestore tune experiments/first.yaml        (searches the space in the search block)
# Ablate:   metarestore ablate experiments/first.yaml      (runs every arm with every combination of the grid block)
seed: 0
data: embedded                      # your own photographs: data: {train: photos/train, test: photos/test}
graph: night_phone
model: {kind: fsrcnn, channels: y, d: 32, s: 8, m: 2}
learner: {kind: pretrain}           # or: {kind: maml, inner_steps: 1, inner_lr: 1e-2}
training:
  steps: 300                        # for a quick test; use 2000 or more for meaningful results
  tasks_per_step: 8
  shard_size: 4
  patch: 64
  optimizer: {kind: adam, lr: 1e-3, schedule: cosine}
  validate_every: 100
adaptation: {shots: 5, optimizer: adam, steps: 50, lr: 3e-4}
engine: {kind: local}               # on all cores: {kind: ray, workers: auto}
arms:
  uniform:
    graph: {estimator: {kind: uniform}}
  weighted: {}
search:
  training.optimizer.lr: {log_uniform: [3e-4, 1e-2]}
  adaptation.lr: {log_uniform: [3e-5, 3e-3]}
tuning: {trials: 8, scheduler: asha}
grid:
  seed: [0, 1]                      # more axes by key path: adaptation.shots: [1, 5]
"""

_IGNORED = """\
runs/
mlflow.db*
mlartifacts/
"""

FILES: Mapping[str, str] = MappingProxyType(
    {
        "tasks/night_phone.yaml": _TASK,
        "graphs/night_phone.yaml": _GRAPH,
        "experiments/first.yaml": _EXPERIMENT,
    }
)
"""The files of a new project, by path."""


def make_project(folder: Path) -> list[Path]:
    """Creates a project with a task distribution, a graph and an experiment that can be run immediately.

    A `.gitignore` is added if there is none.

    Args:
        folder: The folder of the project; created if it does not exist.

    Returns:
        The files that were written.

    Raises:
        UserError: Some of the files exist (then nothing is written), or the folder is not writable.
    """
    files = {folder / name: text for name, text in FILES.items()}
    if taken := [path for path in files if path.exists()]:
        raise UserError([f"{path}: already exists; remove it, or choose another folder" for path in taken])
    ignored = folder / ".gitignore"
    if not ignored.exists():
        files[ignored] = _IGNORED
    for path, text in files.items():
        write_atomically(path, text)
    return list(files)
