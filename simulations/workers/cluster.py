"""A connection to Ray: one that this process had, one to a cluster, or Ray started on this machine."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedmtl.errors import UserError
from simulations.workers.reaper import MARK, end_marked, new_mark, watch

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("fedmtl", "clients", "strategies", "simulations")
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_INLINE = {"max_direct_call_object_size": 4 << 20, "task_rpc_inlined_bytes_limit": 64 << 20}
"""Results up to 4 MiB come back in the answer to a call: by way of the object store small ones cost twice as much."""
_START_SECONDS = 120.0
_ANSWER_SECONDS = 10.0


class Cluster:
    """Where actors live.

    A Ray that was started here is ended when the last of those who use it here has closed; no other Ray is ever ended.

    Parameters
    ----------
    ray
        The module.
    address
        Of a running cluster. None starts Ray on this machine, unless this process is connected to Ray already.
    cpus
        CPUs that Ray may give away if it is started here.

    Attributes
    ----------
    stored_bytes
        Size from which on an argument that several calls share should be stored.

    Raises
    ------
    UserError
        If no cluster answers at the address.
    """

    _users = 0  # of the Ray that was started here
    _reaper: subprocess.Popen[bytes] | None = None  # ends that Ray if this process is killed

    def __init__(self, ray: Any, address: str | None, cpus: int) -> None:
        self._ray = ray
        self._environment: dict[str, Any] | None = None
        self._local = address is None and (Cluster._users > 0 or not ray.is_initialized())
        self._connected = not self._local and not ray.is_initialized()
        # Ray stores larger arguments itself, with every call.
        self.stored_bytes = 1 << 20 if self._local else 100 << 10
        if self._local:
            if Cluster._users == 0:
                Cluster._reaper = _start(ray, cpus)
            Cluster._users += 1
        elif self._connected:
            _connect(ray, address)
        else:
            # Whoever connected this process need not have thought of our packages.
            self._environment = {"env_vars": {"PYTHONPATH": _python_path()}}

    def options(self, device: str, gpus_per_worker: float, count: int) -> dict[str, Any]:
        """Ray's options for each of `count` actors that train on a device."""
        return {
            # On a Ray of our own the number of actors is decided by whoever asks for them.
            "num_cpus": 0 if self._local else 1,
            "num_gpus": self._gpu_share(device, gpus_per_worker, count),
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": self._environment,
        }

    def await_ready(self, actors: list[Any]) -> None:
        """Wait until every actor answers.

        Raises
        ------
        UserError
            If the cluster has no room for them, or dies meanwhile.
        """
        try:
            answers = [actor.ready.remote() for actor in actors]
            ready, _ = self._ray.wait(answers, num_returns=len(answers), timeout=_START_SECONDS)
            # Raises what kept an actor from starting.
            self._ray.get(ready)
        except self._ray.exceptions.RayError as error:
            if isinstance(error, self._ray.exceptions.RayTaskError) or getattr(error, "actor_init_failed", False):
                raise  # what the actor itself met
            raise UserError(_not_started(f"its actors died while they started: {error}")) from error
        if len(ready) < len(answers):
            raise UserError(
                f"only {len(ready)} of {len(answers)} Ray actors started within {_START_SECONDS:g} s; free are "
                f"{self._ray.available_resources()}: use fewer workers (engine.count) or a smaller share of a GPU"
            )

    def close(self) -> None:
        """Leave Ray; end it if it was started here and nobody else here uses it."""
        if self._local:
            Cluster._users -= 1
        if self._connected or (self._local and Cluster._users == 0):
            self._ray.shutdown()
        if self._local and Cluster._users == 0 and Cluster._reaper is not None:
            _dismiss(Cluster._reaper)
            Cluster._reaper = None
        self._local = self._connected = False

    def _gpu_share(self, device: str, gpus_per_worker: float, count: int) -> float:
        if gpus_per_worker or device == "cpu":
            return gpus_per_worker
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        if gpus == 0:
            raise UserError(f'device {device!r} on Ray workers: Ray sees no GPU; use engine.device = "cpu"')
        return 1.0 / math.ceil(count / gpus)


def _start(ray: Any, cpus: int) -> subprocess.Popen[bytes] | None:
    """Start a quiet Ray on this machine, reachable from this machine only; what ends it if this process is killed.

    Raises
    ------
    UserError
        If it does not start.
    """
    mark = new_mark()
    reaper = watch(mark)
    constants = ray._private.ray_constants
    clusters = constants.ENABLE_RAY_CLUSTER
    # Ray replaces a loopback address that it is given by one that others can reach, and listens to all, unless it
    # believes to be on a platform without clusters.
    constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment(_QUIET | {"PYTHONPATH": _python_path(), MARK: mark}):
            ray.init(
                "local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _system_config=dict(_INLINE),  # Ray adds to what it is given, and would warn of that the next time
            )
    except Exception as error:  # Ray raises whatever it meets, Exception itself included
        ray.shutdown()
        end_marked(mark)
        if reaper is not None:
            _dismiss(reaper)
        raise UserError(_not_started(str(error))) from error
    finally:
        constants.ENABLE_RAY_CLUSTER = clusters
    return reaper


def _dismiss(reaper: subprocess.Popen[bytes]) -> None:
    reaper.kill()
    reaper.wait()


def _not_started(reason: str) -> str:
    advice = 'start again, when the machine is less busy, say, or train in this process (engine.workers = "inline")'
    return f"Ray did not start: {reason.strip()}\n{advice}"


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a running cluster, and send it our packages."""
    modules = {"py_modules": [str(_ROOT / package) for package in _PACKAGES]}
    host, _, port = str(address).rpartition(":")
    try:
        if port.isdecimal() and "/" not in host:
            # Ray itself tries for minutes.
            socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
        ray.init(address, runtime_env=modules, log_to_driver=False, logging_level=logging.WARNING)
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address!r}: start one with `ray start --head`, or give no address"
        ) from error


def _python_path() -> str:
    """Where Python looks for modules, this checkout first."""
    return os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables that processes started meanwhile inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
