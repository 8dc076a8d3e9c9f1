"""Kernels of MATLAB 7.3 files: read by h5py where it is installed, else by a stand-in with the same interface."""

import importlib
import importlib.util
import sys
import types
from typing import NamedTuple

import numpy as np
import pytest

from metarestore.degradations.kernel_file import load_kernels

HEADER = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"

KERNELS = np.random.default_rng(0).random((3, 15, 15))


class Variable(NamedTuple):
    """A variable of a file, as MATLAB shows it; of a cell array, the matrices."""

    value: np.ndarray | list[np.ndarray]
    kind: str = "double"

    @property
    def stored(self) -> np.ndarray:
        """The value as HDF5 has it: with its axes reversed."""
        return np.asarray(self.value).T


def write_by_h5py(path, variables):
    h5py = importlib.import_module("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        cells = file.create_group("#refs#")
        for name, variable in variables.items():
            if isinstance(variable.value, list):
                made = [cells.create_dataset(f"{name}{k}", data=cell.T) for k, cell in enumerate(variable.value)]
                references = np.array([[one.ref] for one in made], dtype=object)
                entry = file.create_dataset(name, data=references, dtype=h5py.ref_dtype)
            else:
                entry = file.create_dataset(name, data=variable.stored)
            entry.attrs["MATLAB_class"] = np.bytes_(variable.kind)
    with path.open("r+b") as file:
        file.write(HEADER)


class Dataset:
    """Stands for `h5py.Dataset`."""

    def __init__(self, stored, kind="double"):
        self._stored, self.attrs = stored, {"MATLAB_class": kind.encode()}

    def __getitem__(self, key):
        return self._stored


class File(dict):
    """Stands for an open `h5py.File`: variables by name, and cells by reference."""

    def __init__(self, variables):
        super().__init__()
        self._cells = {}
        for name, variable in variables.items():
            if isinstance(variable.value, list):
                references = np.array([[f"#{name}{k}"] for k in range(len(variable.value))], dtype=object)
                self[name] = Dataset(references, variable.kind)
                self._cells |= {f"#{name}{k}": Dataset(cell.T) for k, cell in enumerate(variable.value)}
            else:
                self[name] = Dataset(variable.stored, variable.kind)

    def __missing__(self, reference):
        return self._cells[reference]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Returns a function that writes variables to a file."""

    def write(**variables):
        path = tmp_path / "k.mat"
        if importlib.util.find_spec("h5py") is not None:
            write_by_h5py(path, variables)
        else:
            path.write_bytes(HEADER + bytes(512))
            stand_in = types.SimpleNamespace(File=lambda _: File(variables), Dataset=Dataset)
            monkeypatch.setitem(sys.modules, "h5py", stand_in)
        return path

    return write


WORD = np.array([[ord(letter) for letter in "kernel"]], np.uint16)

FILES = {
    "matrix": ({"k": Variable(KERNELS[0])}, 1),
    "stack": ({"k": Variable(np.moveaxis(KERNELS, 0, -1))}, 3),
    "cell array": ({"kernels": Variable(list(KERNELS), "cell")}, 3),
    "1x1x15x15": ({"Kernel": Variable(KERNELS[0].reshape(1, 1, 15, 15))}, 1),
    "cells of 1x1x15x15": ({"k": Variable([k.reshape(1, 1, 15, 15) for k in KERNELS], "cell")}, 3),
    "beside others": (
        {"k": Variable(KERNELS[0]), "n": Variable(WORD, "char"), "s": Variable(np.ones((1, 1)))},
        1,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_kernels_are_those_of_the_older_format(name, write):
    variables, count = FILES[name]
    read = load_kernels(write(**variables))
    assert len(read) == count
    for kernel, original in zip(read, KERNELS, strict=False):
        assert np.allclose(kernel, original / original.sum(), atol=1e-7)


def test_key_chooses_a_variable(write):
    path = write(a=Variable(KERNELS[0]), b=Variable(KERNELS[1]))
    assert np.allclose(load_kernels(path, "b")[0], KERNELS[1] / KERNELS[1].sum(), atol=1e-7)
    with pytest.raises(ValueError, match="several variables that could be kernels; set key to a or b"):
        load_kernels(path)


def test_without_h5py_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "k.mat").write_bytes(HEADER + bytes(512))
    with pytest.raises(ValueError, match=r"k\.mat is a MATLAB 7\.3 file; to read it, install h5py .* -v7") as caught:
        load_kernels(tmp_path / "k.mat")
    assert "\n" not in str(caught.value)
