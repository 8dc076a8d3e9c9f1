"""Blur by measured kernels: one is drawn from a file, and its values travel with the draw."""

from __future__ import annotations

import hashlib
import importlib
import json
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from metarestore.config.file_names import full_path
from metarestore.degradations.base import DegradationDraw, Drawn, Parameter, Params, number, register
from metarestore.degradations.blur import KernelBlur
from metarestore.degradations.kernels import Kernel, mass_centre, recentred

LARGEST_KERNEL = 129
"""Pixels along an edge that a kernel of a file may have."""

_TURNING = ("orientation", "source")
"""Keys that decide how kernels are turned: the turned kernels stand for them."""

_ORIENTATIONS: Mapping[str, Literal["correlation", "convolution"]] = MappingProxyType(
    {"kernelgan": "correlation", "kair": "convolution", "usrnet": "convolution", "levin": "convolution"}
)

KNOWN_FILES: Mapping[str, str] = MappingProxyType({"levin": "levin", "kernels_12": "kair", "kernels_bicubic": "kair"})
"""How the names of well-known files begin whose kernels are meant for convolution, and their source."""

_Array = npt.NDArray[Any]

# What readers were seen to raise on files with changed bytes: SciPy's lets through whatever goes wrong in it.
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    TokenError,
    TypeError,
    ValueError,
    cv2.error,
    zlib.error,
)


@register
class KernelFile(KernelBlur):
    """Blurs by a kernel out of a file, drawn from all that are in it, e.g. kernels measured on real cameras.

    A file is `.mat` (a matrix, a stack of matrices, or a cell array of them; MATLAB 7.3 needs the library h5py),
    `.npy` (K, K) or (N, K, K), or a gray `.png`; axes of length 1 are dropped. Kernels are normalised to sum to 1. The
    drawn kernel's values are part of the draw, so that replaying it needs no file.

    Source: Zhou and Süsstrunk, Kernel Modeling Super-Resolution on Real Low-Resolution Images (2019): degrading by a
    pool of estimated kernels.
    """

    examples: ClassVar = ()

    op: Literal["kernel_file"] = "kernel_file"
    path: Path
    """The file; a relative path starts at the project's folder."""
    key: str | None = None
    """Variable of a `.mat` file that holds the kernels; needed if several could."""
    orientation: Literal["correlation", "convolution"] | None = None
    """How the kernels are meant. correlation: a pixel's weights are those of its surroundings as they lie, as SciPy's
    `correlate` and PyTorch's `conv2d` take them. convolution: a kernel is the image of a bright point, as SciPy's
    `convolve` and MATLAB's `conv2` take it, which is the same turned by 180 degrees. By default that of `source`."""
    source: Literal["kernelgan", "kair", "usrnet", "levin"] | None = None
    """Where the kernels come from, which decides their orientation unless that is given: correlation for kernelgan
    and if left out, convolution for kair, usrnet and levin (Levin et al. 2009)."""
    recentre: bool = True
    """Whether each kernel is moved, to fractions of a pixel, so that its mass centre is where `centre` says. Without, a
    kernel's middle is taken for its centre: of an even size, half a pixel right of and below the output pixel."""

    @model_validator(mode="after")
    def _centre_needs_recentring(self) -> Self:
        if self.centre == "block" and not self.recentre:
            raise PydanticCustomError("kernel", "centre does nothing when recentre is false; remove one of them")
        return self

    def rooted(self, root: Path) -> Self:
        """Returns the entry with its path starting at `root`."""
        return self.model_copy(update={"path": full_path(root, self.path)})

    def content(self) -> dict[str, Any]:
        """Returns what decides the draws: the kernels themselves stand for the file, wherever it lies.

        Raises:
            ValueError: The file cannot be read.
        """
        settings = self.model_dump(mode="json", exclude_defaults=True, exclude={"op", "path", "key", *_TURNING})
        return {"op": self.op, **settings, "kernels": _digest(self.kernels())}

    def kernels(self) -> tuple[Kernel, ...]:
        """Returns the kernels of the file as weights of a pixel's surroundings, i.e. for correlation.

        Raises:
            ValueError: The file cannot be read.
        """
        kernels = load_kernels(self.path, self.key)
        meant = self.orientation or (_ORIENTATIONS[self.source] if self.source else "correlation")
        return kernels if meant == "correlation" else tuple(np.rot90(kernel, 2) for kernel in kernels)

    def draw(self, rng: np.random.Generator, scale: int) -> dict[str, Parameter]:
        """Draws one of the kernels, all equally often.

        Raises:
            ValueError: The file cannot be read.
        """
        return self._drawn(int(rng.integers(len(self.kernels()))), scale)

    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields every kernel of the file."""
        for index in range(len(self.kernels())):
            yield (DegradationDraw(self.op, position, self._drawn(index, scale)),)

    def _drawn(self, index: int, scale: int) -> dict[str, Parameter]:
        kernel = self.kernels()[index]
        if self.recentre:
            kernel = recentred(kernel, self.shift(scale))
        return {
            "file": self.path.name,
            "index": index,
            "digest": _digest([kernel]),
            "rows": len(kernel),
            "kernel": kernel.ravel().tolist(),
        }

    @classmethod
    def check_params(cls, params: Params) -> None:
        """Makes sure that parameters hold a kernel.

        Raises:
            ValueError: They do not.
        """
        rows, values = params.get("rows"), params.get("kernel")
        if not isinstance(rows, int) or rows < 1 or not isinstance(values, list) or not values or len(values) % rows:
            raise ValueError("kernel_file.kernel: is not a list of numbers in whole rows")
        if not all(isinstance(value, float | int) and np.isfinite(value) for value in values):
            raise ValueError("kernel_file.kernel: is not a list of finite numbers")

    @staticmethod
    def kernel(params: Params) -> Kernel:
        """Returns the drawn kernel."""
        values = np.asarray(params["kernel"], dtype=np.float32)
        return values.reshape(int(number(params, "rows")), -1)


def load_kernels(path: Path, key: str | None = None) -> tuple[Kernel, ...]:
    """Reads the kernels (h, w) of a file, each normalised to sum to 1; values may be negative.

    Args:
        path: A `.mat`, `.npy` or `.png` file.
        key: Variable of a `.mat` file.

    Raises:
        ValueError: With one line that says what is wrong with the file, and what to do.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        raise ValueError(f"there is no file {_name(path)}; put the kernels there")
    if path.suffix.lower() not in _OPEN:
        raise ValueError(f"{_name(path)} is no kernel file; give a {' or '.join(_OPEN)} file")
    return _load(path.absolute(), key, status.st_mtime_ns, status.st_size)


# Time and size stand for the content: a file that is written anew is read anew.
@lru_cache(maxsize=16)
def _load(path: Path, key: str | None, modified: int, size: int) -> tuple[Kernel, ...]:
    kernels = _matrices(_variable(_opened(path), path, key), path)
    if not kernels:
        raise ValueError(f"{_name(path)} has no kernel in it; put one there")
    names = [f"kernel {index} of {_name(path)}" for index in range(len(kernels))] if kernels[1:] else [_name(path)]
    return tuple(_checked(kernel, name) for kernel, name in zip(kernels, names, strict=True))


def _opened(path: Path) -> dict[str, _Array]:
    """Returns the arrays of a file by their names; formats without names have one array, named "" here."""
    suffix = path.suffix.lower()
    try:
        return _OPEN[suffix](path)
    except ImportError as error:
        text = "is a MATLAB 7.3 file; install h5py to read it (pip install h5py), or save it with the option -v7"
        raise ValueError(f"{_name(path)} {text}") from error
    except _UNREADABLE as error:
        raise ValueError(f"{_name(path)} cannot be read as a {suffix} file; write it again") from error


def _open_mat(path: Path) -> dict[str, _Array]:
    from scipy import io

    try:
        variables = io.loadmat(path)
    except NotImplementedError:
        return _open_hdf5(path)
    except io.matlab.MatReadError as error:
        raise ValueError(str(error)) from error
    return {name: np.asarray(value) for name, value in variables.items() if not name.startswith("__")}


def _open_hdf5(path: Path) -> dict[str, _Array]:
    """Reads a MATLAB 7.3 file, which is HDF5 with the axes reversed; what `#refs#` holds belongs to cell arrays."""
    h5py = importlib.import_module("h5py")
    with h5py.File(path) as file:
        return {name: _hdf5_value(file, entry) for name, entry in file.items() if isinstance(entry, h5py.Dataset)}


def _hdf5_value(file: Any, entry: Any) -> _Array:
    """Returns a variable of a MATLAB 7.3 file; a cell array as an array of objects."""
    if entry.attrs.get("MATLAB_empty", 0):
        return np.zeros((0, 0))
    value = np.asarray(entry[()])
    if entry.attrs.get("MATLAB_class", b"") == b"char":
        return np.array(["".join(map(chr, value.ravel()))])
    if value.dtype != object:
        return value.T
    cells = np.empty(value.T.shape, dtype=object)
    for at, reference in np.ndenumerate(value.T):
        cells[at] = np.asarray(file[reference][()]).T
    return cells


def _open_npy(path: Path) -> dict[str, _Array]:
    # Mapped, a header that lies about the size costs no memory.
    return {"": np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))}


def _open_png(path: Path) -> dict[str, _Array]:
    levels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None:
        raise ValueError("no image")
    gray = levels.ndim == 3 and levels.shape[2] == 3 and bool((levels == levels[..., :1]).all())
    return {"": np.asarray(levels[..., 0] if gray else levels)}


_OPEN: dict[str, Callable[[Path], dict[str, _Array]]] = {".mat": _open_mat, ".npy": _open_npy, ".png": _open_png}


def _variable(variables: dict[str, _Array], path: Path, key: str | None) -> _Array:
    """Returns the variable that holds the kernels: the one that `key` names, or the only one that could."""
    listing = ", ".join(name for name in variables if name) or "no variables"
    if key is not None:
        if key not in variables or not key:
            raise ValueError(f"{_name(path)} has no variable {key!r}; it has {listing}")
        return variables[key]
    square = [name for name, value in variables.items() if _made_of(value, lambda high, wide: 1 < high == wide)]
    fitting = square or [name for name, value in variables.items() if _made_of(value, lambda *sides: min(sides) > 1)]
    if len(fitting) > 1:
        raise ValueError(
            f"{_name(path)} has several variables that could be kernels; set key to {' or '.join(fitting)}"
        )
    if fitting or "" in variables:
        return variables[fitting[0] if fitting else ""]
    raise ValueError(f"{_name(path)} has no kernel in it, but {listing}; put one there")


def _made_of(value: _Array, holds: Callable[[int, int], bool]) -> bool:
    """Tells whether an array is made of matrices of numbers whose heights and widths are as asked for."""
    matrices = _split(value)
    numbers = (matrix.ndim == 2 and matrix.dtype.kind in "iufc" for matrix in matrices)
    return bool(matrices) and all(numbers) and all(holds(*matrix.shape) for matrix in matrices)


def _matrices(value: _Array, path: Path) -> list[_Array]:
    """Returns the kernels of an array."""
    suffix, value = path.suffix.lower(), _squeezed(value)
    if suffix == ".png" and value.ndim != 2:
        raise ValueError(f"{_name(path)} is not gray; save it as a gray image")
    return list(value) if suffix == ".npy" and value.ndim == 3 else _split(value)


def _split(value: _Array) -> list[_Array]:
    """Returns the matrices of a MATLAB variable; MATLAB stacks them along the last axis, others along the first."""
    if value.dtype == object:
        return [_squeezed(np.asarray(entry)) for entry in value.ravel(order="F")]
    value = _squeezed(value)
    if value.ndim != 3:
        return [value]
    first = value.shape[0] != value.shape[1] == value.shape[2]
    return list(value if first else np.moveaxis(value, -1, 0))


def _squeezed(value: _Array) -> _Array:
    """Returns an array without axes of length 1, of which it keeps as many as a matrix needs."""
    while value.ndim > 2 and 1 in value.shape:
        value = value.squeeze(value.shape.index(1))
    return value


def _checked(kernel: _Array, name: str) -> Kernel:
    """Returns a kernel that sums to 1."""
    if kernel.ndim != 2 or not kernel.size:
        raise ValueError(f"{name} has the shape {_shape(kernel)}; a kernel has two dimensions")
    if max(kernel.shape) > LARGEST_KERNEL:
        raise ValueError(f"{name} is {_shape(kernel)}; a kernel has at most {LARGEST_KERNEL}x{LARGEST_KERNEL} pixels")
    if kernel.dtype.kind not in "iuf":
        raise ValueError(f"{name} holds {kernel.dtype.name} values; a kernel has real numbers")
    weights = kernel.astype(np.float64)
    if not np.isfinite(weights).all():
        raise ValueError(f"{name} has a value that is not finite")
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not 0 < total < np.inf:
        raise ValueError(f"{name} sums to {total:.3g}; the sum of a kernel is above 0")
    normalised = np.asarray(weights / total, dtype=np.float32)
    centre = mass_centre(normalised)
    if not all(0 <= at <= length - 1 + 1e-6 for at, length in zip(centre, kernel.shape, strict=True)):
        raise ValueError(f"{name} has its mass centre outside of itself: it has too many negative values")
    normalised.flags.writeable = False
    return normalised


def _digest(kernels: Sequence[Kernel]) -> str:
    """Returns 16 hex digits of the kernels' sizes and values."""
    summary = hashlib.blake2b(json.dumps([kernel.shape for kernel in kernels]).encode(), digest_size=8)
    for kernel in kernels:
        summary.update(np.ascontiguousarray(kernel, dtype="<f4").tobytes())
    return summary.hexdigest()


def _name(path: Path) -> str:
    """Returns a path in one line, whatever is in it."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def _shape(array: _Array) -> str:
    return "x".join(map(str, array.shape)) or "a single number"
