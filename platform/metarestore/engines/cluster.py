"""Connects to a Ray cluster, and counts the workers that fit it."""

from __future__ import annotations

import atexit
import logging
import math
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.util.placement_group import PlacementGroup

from metarestore.config.engine import RayEngineSpec
from metarestore.errors import UserError

_REMEDY = "start one with `ray start --head`, or remove the address"
_CLIENT = "ray://"
_SOCKET_NAME = len("/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store.1")
"""Bytes that Ray appends to its folder for the longest path of a socket."""


def connect(spec: RayEngineSpec) -> None:
    """Connects to the cluster of a specification, or starts a local one.

    Raises:
        UserError: No cluster responds at the address, or the local one would be far too large for the machine.
    """
    # Silences Ray's warning about a future change for actors without GPUs, which does not affect ours.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local = spec.address is None
    if spec.address not in (None, "auto", "local"):
        _check_reachable(str(spec.address))
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if local:
        options |= {"num_cpus": _local_slots(spec), "include_dashboard": False}
        if (folder := _short_folder()) is not None:
            options["_temp_dir"] = folder
    try:
        ray.init(address="local" if local else spec.address, **options)
    except ImportError as error:
        raise UserError(f"engine.address: {_CLIENT} needs Ray's client; pip install 'ray[client]'") from error
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        # If a token is missing, Ray logs that but only raises that it could not connect.
        reason = str(error).splitlines()[0]
        raise UserError(
            f"engine.address: no Ray cluster responds at '{spec.address}' ({reason}); {_REMEDY}; if it requires a "
            "token, set RAY_AUTH_MODE=token and copy ~/.ray/auth_token from its head node to this machine"
        ) from error


@contextmanager
def connected(spec: RayEngineSpec) -> Iterator[None]:
    """Connects to the cluster of a specification, or starts a local one, unless the process is connected already.

    A connection that is made here ends with the context.

    Raises:
        UserError: As for `connect`.
    """
    if ray.is_initialized():
        yield
        return
    connect(spec)
    try:
        yield
    finally:
        ray.shutdown()


def socket_room(folder: str) -> int:
    """Returns how many bytes the longest socket path is below the limit if Ray keeps its files in `folder`.

    Ray's sockets are in folder/session_DATE_TIME_MICROSECONDS_PID/sockets; `sockaddr_un` has 108 bytes for a path on
    Linux and 104 on macOS, including the terminating zero.
    """
    return (104 if sys.platform == "darwin" else 108) - 1 - len(os.fsencode(folder)) - _SOCKET_NAME


def _short_folder() -> str | None:
    """Creates a folder for Ray's sockets if the path of the default one is too long, as on many batch systems.

    Returns:
        The folder, which is removed at the end of the process; None if the default folder can be used.

    Raises:
        UserError: It cannot be created.
    """
    if os.name == "nt":
        return None  # Windows does not use Unix sockets
    variables = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)
    default = next((os.environ[name] for name in variables if os.environ.get(name)), "/tmp")
    if socket_room(os.path.join(default, "ray")) >= 0:
        return None
    try:
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    except OSError as error:
        raise UserError(
            f"engine: the path {default} is too long for Ray's sockets, and /tmp is not writable ({error.strerror}); "
            "set RAY_TMPDIR to a folder with a short path"
        ) from error
    atexit.register(_remove, folder)
    return folder


def _remove(folder: str) -> None:
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _local_slots(spec: RayEngineSpec) -> int:
    """Returns the CPU slots of a local cluster, as many as requested: small clusters may oversubscribe the cores."""
    cores = os.cpu_count() or 1
    requested = 0 if spec.workers == "auto" else math.ceil(spec.workers * spec.cpus_per_worker)
    if requested > max(4 * cores, 4):
        raise UserError(
            f"engine.workers: {spec.workers} workers of {spec.cpus_per_worker:g} CPUs are too many for the {cores} "
            f"cores of this machine; use auto, or at most {max(4 * cores, 4)}"
        )
    return max(requested, cores)


def _check_reachable(address: str) -> None:
    """Tries to open a connection first, because Ray itself waits for minutes if there is no cluster."""
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"engine.address: '{address}' is not auto, host:port or ray://host:port; {_REMEDY}")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"engine.address: no Ray cluster responds at '{address}' ({error.strerror or error}); {_REMEDY}"
        ) from error


def alive_nodes() -> dict[str, Mapping[str, float]]:
    """Returns the live nodes of the cluster: the resources of each, by id."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


def reserved() -> PlacementGroup | None:
    """Returns the resources that Ray has reserved for this process (a tuning trial), or None."""
    group: PlacementGroup | None = ray.util.get_current_placement_group()
    return group


def usable_resources(nodes: Mapping[str, Mapping[str, float]]) -> Mapping[str, Mapping[str, float]]:
    """Returns the resources that workers may use: the bundles reserved for this process, or else those of `nodes`."""
    group = reserved()
    return nodes if group is None else {str(i): bundle for i, bundle in enumerate(group.bundle_specs)}


def capacity(spec: RayEngineSpec, resources: Mapping[str, Mapping[str, float]]) -> int:
    """Counts the workers that fit on nodes or bundles; a worker cannot span two of them.

    >>> capacity(RayEngineSpec(kind="ray", cpus_per_worker=2), {"a": {"CPU": 3}, "b": {"CPU": 5}})
    3
    >>> quarters = RayEngineSpec(kind="ray", cpus_per_worker=0.5, gpus_per_worker=0.25)
    >>> capacity(quarters, {"a": {"CPU": 8, "GPU": 1}, "b": {"CPU": 8}})
    4
    """
    return sum(_capacity_of_node(spec, node) for node in resources.values())


def _capacity_of_node(spec: RayEngineSpec, resources: Mapping[str, float]) -> int:
    # Fractions like 0.1 are not exact in floating point, so 1 / 0.1 may be 9.999.
    workers = math.floor(resources.get("CPU", 0) / spec.cpus_per_worker + 1e-6)
    if spec.gpus_per_worker:
        workers = min(workers, math.floor(resources.get("GPU", 0) / spec.gpus_per_worker + 1e-6))
    return workers


def worker_count(spec: RayEngineSpec) -> int:
    """Returns how many workers to start.

    Raises:
        UserError: They do not fit the cluster.
    """
    available = capacity(spec, usable_resources(alive_nodes()))
    count = available if spec.workers == "auto" else spec.workers
    if not 0 < count <= available:
        raise UserError(
            f"engine.workers: {spec.workers} workers of {spec.cpus_per_worker:g} CPUs and {spec.gpus_per_worker:g} "
            f"GPUs do not fit the cluster, which can run {available}; lower engine.workers or the resources per worker"
        )
    return count
