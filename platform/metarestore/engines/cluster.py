"""Connecting to a Ray cluster, and how many workers it has room for."""

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

from metarestore.config.experiment import RayEngineSpec
from metarestore.errors import UserError

_REMEDY = "start one with `ray start --head`, or leave the address out"
_CLIENT = "ray://"
_SOCKET_NAME = len("/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store.1")
"""Bytes that Ray adds to its folder for the longest name of a socket."""


def connect(spec: RayEngineSpec) -> None:
    """Connects to the cluster of a specification, or starts a local one.

    Raises:
        UserError: No cluster answers at the address, or the local one would be far too large for the machine.
    """
    # Ray warns of a coming change for actors without GPUs unless this is set; ours see none either way.
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
        # Ray only logs that a token is missing, and reports that it could not connect.
        reason = str(error).splitlines()[0]
        raise UserError(
            f"engine.address: no Ray cluster answers at '{spec.address}' ({reason}); {_REMEDY}; if it asks for a "
            "token, set RAY_AUTH_MODE=token and copy ~/.ray/auth_token of its head to this machine"
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
    """Returns how many bytes are left of the longest path of a socket if Ray keeps its files in `folder`.

    Ray's sockets lie in folder/session_DATE_TIME_MICROSECONDS_PID/sockets; `sockaddr_un` has 108 bytes for a path on
    Linux and 104 on macOS, its last byte is 0.
    """
    return (104 if sys.platform == "darwin" else 108) - 1 - len(os.fsencode(folder)) - _SOCKET_NAME


def _short_folder() -> str | None:
    """Makes a folder for Ray's sockets where the usual one has too long a path, as TMPDIR of batch systems often has.

    Returns:
        The folder, which is removed at the end of the process; None where the usual one will do.

    Raises:
        UserError: There is no place for it.
    """
    if os.name == "nt":
        return None  # Windows has no such sockets
    variables = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)
    usual = next((os.environ[name] for name in variables if os.environ.get(name)), "/tmp")
    if socket_room(os.path.join(usual, "ray")) >= 0:
        return None
    try:
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    except OSError as error:
        raise UserError(
            f"engine: {usual} is too long a path for Ray's sockets, and /tmp cannot be written ({error.strerror}); "
            "set RAY_TMPDIR to a folder with a short path"
        ) from error
    atexit.register(_remove, folder)
    return folder


def _remove(folder: str) -> None:
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _local_slots(spec: RayEngineSpec) -> int:
    """Returns the CPU slots of a local cluster: as many as are asked for, since tests run 3 workers on 2 cores."""
    cores = os.cpu_count() or 1
    wanted = 0 if spec.workers == "auto" else math.ceil(spec.workers * spec.cpus_per_worker)
    if wanted > max(4 * cores, 4):
        raise UserError(
            f"engine.workers: {spec.workers} workers of {spec.cpus_per_worker:g} CPUs are too many for the {cores} "
            f"cores of this machine; write auto, or at most {max(4 * cores, 4)}"
        )
    return max(wanted, cores)


def _check_reachable(address: str) -> None:
    """Asks for a connection first, because Ray itself waits for minutes for a cluster that is not there."""
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"engine.address: '{address}' is not auto, host:port or ray://host:port; {_REMEDY}")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"engine.address: no Ray cluster answers at '{address}' ({error.strerror or error}); {_REMEDY}"
        ) from error


def alive_nodes() -> dict[str, Mapping[str, float]]:
    """Returns the machines of the cluster that are up: id and resources of each."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


def reserved() -> PlacementGroup | None:
    """Returns what Ray has reserved for this process, as it does for the trials of a sweep; None outside of one."""
    group: PlacementGroup | None = ray.util.get_current_placement_group()
    return group


def open_places(nodes: Mapping[str, Mapping[str, float]]) -> Mapping[str, Mapping[str, float]]:
    """Returns where workers may start: the bundles reserved for this process, or else the machines `nodes`."""
    group = reserved()
    return nodes if group is None else {str(i): bundle for i, bundle in enumerate(group.bundle_specs)}


def room(spec: RayEngineSpec, places: Mapping[str, Mapping[str, float]]) -> int:
    """Counts the workers that machines, or bundles, have room for; a worker cannot span two of them.

    >>> room(RayEngineSpec(kind="ray", cpus_per_worker=2), {"a": {"CPU": 3}, "b": {"CPU": 5}})
    3
    >>> quarters = RayEngineSpec(kind="ray", cpus_per_worker=0.5, gpus_per_worker=0.25)
    >>> room(quarters, {"a": {"CPU": 8, "GPU": 1}, "b": {"CPU": 8}})
    4
    """
    return sum(_room_of_one(spec, resources) for resources in places.values())


def _room_of_one(spec: RayEngineSpec, resources: Mapping[str, float]) -> int:
    # Shares like 0.1 are not exact, so 1 / 0.1 may come out as 9.999.
    places = math.floor(resources.get("CPU", 0) / spec.cpus_per_worker + 1e-6)
    if spec.gpus_per_worker:
        places = min(places, math.floor(resources.get("GPU", 0) / spec.gpus_per_worker + 1e-6))
    return places


def worker_count(spec: RayEngineSpec) -> int:
    """Returns how many workers to start.

    Raises:
        UserError: The cluster has no room for them.
    """
    places = room(spec, open_places(alive_nodes()))
    count = places if spec.workers == "auto" else spec.workers
    if not 0 < count <= places:
        raise UserError(
            f"engine.workers: {spec.workers} workers of {spec.cpus_per_worker:g} CPUs and {spec.gpus_per_worker:g} "
            f"GPUs do not fit the cluster, which has room for {places}; lower engine.workers or the shares per worker"
        )
    return count
