"""Blur with measured kernels: one is drawn from a file, and its values are stored in the draw."""

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
"""Largest side of a kernel from a file, in pixels."""

_ORIENTING = ("orientation", "source")
"""Keys that determine the orientation of the kernels; the oriented kernels replace them in the content."""

_ORIENTATIONS: Mapping[str, Literal["correlation", "convolution"]] = MappingProxyType(
    {"kernelgan": "correlation", "kair": "convolution", "usrnet": "convolution", "levin": "convolution"}
)

KNOWN_FILES: Mapping[str, str] = MappingProxyType({"levin": "levin", "kernels_12": "kair", "kernels_bicubic": "kair"})
"""Prefixes of the names of well-known files with kernels for convolution, and their source."""

_Array = npt.NDArray[Any]

# Errors observed from readers of corrupted files: SciPy's reader lets internal errors through.
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
    """Blurs with a kernel that is drawn from a file, e.g. of kernels measured on real cameras.

    The file is a `.mat` (a matrix, a stack of matrices, or a cell array of them; MATLAB 7.3 needs the library h5py),
    `.npy` (K, K) or (N, K, K), or a gray `.png`; axes of length 1 are dropped. Kernels are normalised to sum to 1. The
    values of the drawn kernel are part of the draw, so that replaying it does not need the file.

    Source: Zhou and Süsstrunk, Kernel Modeling Super-Resolution on Real Low-Resolution Images (2019): degrading with a
    pool of estimated kernels.
    """

    examples: ClassVar = ()

    op: Literal["kernel_file"] = "kernel_file"
    path: Path
    """The file; a relative path is resolved against the project's folder."""
    key: str | None = None
    """Variable of a `.mat` file that holds the kernels; required if several variables could."""
    orientation: Literal["correlation", "convolution"] | None = None
    """Convention of the kernels. `correlation`: weights are applied to the neighbourhood as they are, as in SciPy's
    `correlate` and PyTorch's `conv2d`. `convolution`: a kernel is the image of a bright point, as in SciPy's `convolve`
    and MATLAB's `conv2`, i.e. rotated by 180 degrees. Defaults to that of `source`."""
    source: Literal["kernelgan", "kair", "usrnet", "levin"] | None = None
    """Origin of the kernels, which determines `orientation` unless that is given: correlation for kernelgan and by
    default, convolution for kair, usrnet and levin (Levin et al. 2009)."""
    recentre: bool = True
    """Whether each kernel is shifted, with sub-pixel accuracy, so that its centre of mass is at the position given by
    `centre`. Otherwise the middle of the kernel is its centre: for an even size, half a pixel right of and below the
    output pixel."""

    @model_validator(mode="after")
    def _centre_needs_recentring(self) -> Self:
        if self.centre == "block" and not self.recentre:
            raise PydanticCustomError("kernel", "centre has no effect when recentre is false; remove one of them")
        return self

    def rooted(self, root: Path) -> Self:
        """Returns the entry with its path resolved against `root`."""
        return self.model_copy(update={"path": full_path(root, self.path)})

    def content(self) -> dict[str, Any]:
        """Returns everything that determines the draws: the kernels themselves instead of the path to their file.

        Raises:
            ValueError: The file cannot be read.
        """
        settings = self.model_dump(mode="json", exclude_defaults=True, exclude={"op", "path", "key", *_ORIENTING})
        return {"op": self.op, **settings, "kernels": _digest(self.kernels())}

    def kernels(self) -> tuple[Kernel, ...]:
        """Returns the kernels of the file, oriented for correlation.

        Raises:
            ValueError: The file cannot be read.
        """
        kernels = load_kernels(self.path, self.key)
        orientation = self.orientation or (_ORIENTATIONS[self.source] if self.source else "correlation")
        return kernels if orientation == "correlation" else tuple(np.rot90(kernel, 2) for kernel in kernels)

    def draw(self, rng: np.random.Generator, scale: int) -> dict[str, Parameter]:
        """Draws one of the kernels, all with equal probability.

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
        """Checks that parameters hold a kernel.

        Raises:
            ValueError: They do not hold a kernel.
        """
        rows, values = params.get("rows"), params.get("kernel")
        if not isinstance(rows, int) or rows < 1 or not isinstance(values, list) or not values or len(values) % rows:
            raise ValueError("kernel_file.kernel: must be a list of numbers that fills `rows` rows")
        if not all(isinstance(value, float | int) and np.isfinite(value) for value in values):
            raise ValueError("kernel_file.kernel: must be a list of finite numbers")

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
        ValueError: The file cannot be read; the message is one line with the problem and its solution.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        raise ValueError(f"there is no file {_name(path)}; check the path")
    if path.suffix.lower() not in _OPEN:
        raise ValueError(f"{_name(path)} is not a kernel file; supported formats are {', '.join(_OPEN)}")
    return _load(path.absolute(), key, status.st_mtime_ns, status.st_size)


# The modification time and the size are part of the cache key: a changed file is read again.
@lru_cache(maxsize=16)
def _load(path: Path, key: str | None, modified: int, size: int) -> tuple[Kernel, ...]:
    kernels = _matrices(_variable(_opened(path), path, key), path)
    if not kernels:
        raise ValueError(f"{_name(path)} holds no kernel")
    names = [f"kernel {index} of {_name(path)}" for index in range(len(kernels))] if kernels[1:] else [_name(path)]
    return tuple(_checked(kernel, name) for kernel, name in zip(kernels, names, strict=True))


def _opened(path: Path) -> dict[str, _Array]:
    """Returns the arrays of a file by name; the single array of a format without names is called ""."""
    suffix = path.suffix.lower()
    try:
        return _OPEN[suffix](path)
    except ImportError as error:
        text = "is a MATLAB 7.3 file; to read it, install h5py (pip install h5py), or save it with the option -v7"
        raise ValueError(f"{_name(path)} {text}") from error
    except _UNREADABLE as error:
        raise ValueError(f"{_name(path)} cannot be read as a {suffix} file; save it again") from error


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
    """Reads a MATLAB 7.3 file: HDF5 with the axes reversed; the group `#refs#` holds the entries of cell arrays."""
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
    # With memory mapping, a header with a wrong size does not allocate memory.
    return {"": np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))}


def _open_png(path: Path) -> dict[str, _Array]:
    levels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None:
        raise ValueError("no image")
    gray = levels.ndim == 3 and levels.shape[2] == 3 and bool((levels == levels[..., :1]).all())
    return {"": np.asarray(levels[..., 0] if gray else levels)}


_OPEN: dict[str, Callable[[Path], dict[str, _Array]]] = {".mat": _open_mat, ".npy": _open_npy, ".png": _open_png}


def _variable(variables: dict[str, _Array], path: Path, key: str | None) -> _Array:
    """Returns the variable that holds the kernels: the one named by `key`, or else the only candidate."""
    listing = ", ".join(name for name in variables if name) or "none"
    if key is not None:
        if key not in variables or not key:
            raise ValueError(f"{_name(path)} has no variable {key!r}; its variables: {listing}")
        return variables[key]
    square = [name for name, value in variables.items() if _is_stack(value, lambda high, wide: 1 < high == wide)]
    candidates = square or [
        name for name, value in variables.items() if _is_stack(value, lambda *sides: min(sides) > 1)
    ]
    if len(candidates) > 1:
        raise ValueError(
            f"{_name(path)} has several variables that could be kernels; set key to {' or '.join(candidates)}"
        )
    if candidates or "" in variables:
        return variables[candidates[0] if candidates else ""]
    raise ValueError(f"{_name(path)} holds no kernel; its variables: {listing}")


def _is_stack(value: _Array, predicate: Callable[[int, int], bool]) -> bool:
    """Returns whether an array consists of numeric matrices whose heights and widths satisfy `predicate`."""
    matrices = _split(value)
    numbers = (matrix.ndim == 2 and matrix.dtype.kind in "iufc" for matrix in matrices)
    return bool(matrices) and all(numbers) and all(predicate(*matrix.shape) for matrix in matrices)


def _matrices(value: _Array, path: Path) -> list[_Array]:
    """Returns the kernels of an array."""
    suffix, value = path.suffix.lower(), _squeezed(value)
    if suffix == ".png" and value.ndim != 2:
        raise ValueError(f"{_name(path)} is not grayscale; save it as a grayscale image")
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
    """Removes axes of length 1 as long as more than two axes remain."""
    while value.ndim > 2 and 1 in value.shape:
        value = value.squeeze(value.shape.index(1))
    return value


def _checked(kernel: _Array, name: str) -> Kernel:
    """Checks a kernel and normalises it to sum to 1."""
    if kernel.ndim != 2 or not kernel.size:
        raise ValueError(f"{name} has the shape {_shape(kernel)}; a kernel must have two dimensions")
    if max(kernel.shape) > LARGEST_KERNEL:
        raise ValueError(
            f"{name} is {_shape(kernel)}; a kernel may have at most {LARGEST_KERNEL}x{LARGEST_KERNEL} pixels"
        )
    if kernel.dtype.kind not in "iuf":
        raise ValueError(f"{name} holds {kernel.dtype.name} values; a kernel must hold real numbers")
    weights = kernel.astype(np.float64)
    if not np.isfinite(weights).all():
        raise ValueError(f"{name} holds a value that is not finite")
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not 0 < total < np.inf:
        raise ValueError(f"{name} sums to {total:.3g}; the sum of a kernel must be above 0")
    normalised = np.asarray(weights / total, dtype=np.float32)
    centre = mass_centre(normalised)
    if not all(0 <= at <= length - 1 + 1e-6 for at, length in zip(centre, kernel.shape, strict=True)):
        raise ValueError(f"{name} has its centre of mass outside the kernel: it has too many negative values")
    normalised.flags.writeable = False
    return normalised


def _digest(kernels: Sequence[Kernel]) -> str:
    """Returns 16 hex digits of the kernels' sizes and values."""
    summary = hashlib.blake2b(json.dumps([kernel.shape for kernel in kernels]).encode(), digest_size=8)
    for kernel in kernels:
        summary.update(np.ascontiguousarray(kernel, dtype="<f4").tobytes())
    return summary.hexdigest()


def _name(path: Path) -> str:
    """Returns a path on one line, with unprintable characters escaped."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def _shape(array: _Array) -> str:
    return "x".join(map(str, array.shape)) or "a single number"
