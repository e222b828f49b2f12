"""Real Flower: its simulation engine, and a SuperLink with two SuperNodes on the loopback interface.

Nothing here is timed. Every wait is bounded and every process that a test starts is ended by the test.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fedmtl.config import parse_config
from simulations.experiment import Experiment
from simulations.runner import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[3]
TABLES = ("updates", "aggregations", "evaluations")
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
}


class Flower:
    """Flower's programs with a home, a working directory and ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cwd = folder / "cwd"  # Flower's workers import from there first, so it must hold no code
        self.cwd.mkdir()
        home = folder / "home"
        home.mkdir()
        self.port = free_port()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )
        self._bin = Path(sys.executable).parent
        self._environment = {
            **os.environ,
            **QUIET,
            "FLWR_HOME": str(home),
            "PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}",
        }
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, program: str, *arguments: str) -> None:
        """Start a program that goes on until the test is over."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self._bin / program), *arguments],
                cwd=self.cwd,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append((name, process))

    def start_superlink(self, *arguments: str) -> None:
        """Start a SuperLink and wait until it answers."""
        self.start(
            "superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(self.port), *arguments
        )
        self.wait("the SuperLink's health", lambda: answers(f"http://127.0.0.1:{self.port}/health"), 120)

    def start_supernode(self, partition: int, partitions: int) -> None:
        """Start a SuperNode that is this partition."""
        self.start(
            f"supernode{partition}",
            "flower-supernode",
            "--insecure",
            "--superlink",
            f"127.0.0.1:{self.port}",
            "--port",
            str(free_port()),
            "--node-config",
            f"partition-id={partition} num-partitions={partitions}",
        )

    def run(self, experiment: str, out: Path, *arguments: str) -> None:
        """`flwr run` this project, and wait until the run has ended."""
        options = self.folder / "run.toml"
        options.write_text(f"experiment = {json.dumps(experiment)}\nout = {json.dumps(str(out))}\npictures = false\n")
        self.start("run", "flwr", "run", str(ROOT), "here", "--stream", "--run-config", str(options), *arguments)
        process = self._processes[-1][1]
        self.wait("the run's end", lambda: (out / "summary.json").exists() or process.poll() is not None, 400)
        assert (out / "summary.json").exists(), f"the run failed:\n{self.logs()}"

    def wait(self, what: str, happened: Callable[[], bool], seconds: float) -> None:
        """Wait until something has happened, while every process that should go on does."""
        end = time.monotonic() + seconds
        while not happened():
            dead = [name for name, process in self._processes if process.poll() not in (None, 0)]
            assert not dead, f"waiting for {what}, {dead} ended:\n{self.logs()}"
            assert time.monotonic() < end, f"{what} did not come within {seconds:g} s:\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in self.folder.glob("*.log")
        )

    def stop(self) -> None:
        """End every process that was started, and the processes of its session."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            for _, process in reversed(self._processes):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal_number)
            for _, process in self._processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=15)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[Flower]:
    flower = Flower(tmp_path)
    try:
        yield flower
    finally:
        flower.stop()


def tables_of(directory: Path) -> dict[str, Any]:
    return {name: pq.read_table(directory / f"{name}.parquet") for name in TABLES}


def run_here(experiment: str, out: Path) -> dict[str, Any]:
    run(Experiment(parse_config(tomllib.loads(experiment))), out, pictures=False)
    return tables_of(out)


SIMULATED = """
seed = 4
[data]
clients = 6
partition = "iid"
[model]
name = "mlp"
hidden = [4]
[strategy]
name = "fedqs"
buffer_size = 3
[balancing]
name = "ntkmtl-sr"
[training]
epochs = 1
[stop]
versions = 6
[records]
evaluate_every = 2
"""


def test_flowers_simulation_engine_gives_the_bits_of_a_run_in_this_process(flower: Flower, tmp_path: Path) -> None:
    flower.start_superlink("--simulation")
    federation = "num-supernodes=4 client-resources-num-cpus=1 init-args-num-cpus=2"
    flower.run(SIMULATED, tmp_path / "there", "--federation-config", federation)
    there, here = tables_of(tmp_path / "there"), run_here(SIMULATED, tmp_path / "here")
    for name in TABLES:
        assert there[name].equals(here[name]), f"{name}: {there[name].to_pylist()} != {here[name].to_pylist()}"
    assert here["aggregations"].num_rows == 6


DEPLOYED = """
seed = 4
[data]
clients = 2
partition = "iid"
[model]
name = "mlp"
hidden = [4]
[strategy]
name = "fedqs"
buffer_size = 1
[balancing]
name = "equal"
[training]
epochs = 1
[stop]
versions = 4
[records]
evaluate_every = 4
"""


def test_an_asynchronous_strategy_runs_on_real_supernodes(flower: Flower, tmp_path: Path) -> None:
    flower.start_superlink()
    for partition in range(2):
        flower.start_supernode(partition, 2)
    flower.run(DEPLOYED, tmp_path / "there")
    there, here = tables_of(tmp_path / "there"), run_here(DEPLOYED, tmp_path / "here")
    assert {name: table.schema for name, table in there.items()} == {name: table.schema for name, table in here.items()}

    steps = there["aggregations"].to_pylist()
    assert [step["version"] for step in steps] == [1, 2, 3, 4]
    assert all(step["size"] == 1 for step in steps)

    updates = [row for row in there["updates"].to_pylist() if row["applied_version"] is not None]
    assert {row["client"] for row in updates} == {0, 1}
    assert all(row["staleness"] == row["applied_version"] - 1 - row["base_version"] for row in updates)
    assert max(row["staleness"] for row in updates) >= 1, "both clients started from version 0, so the second was late"
    assert all(0 < row["dispatched_at"] < row["arrived_at"] for row in updates)
    assert all(row["rejected"] is None for row in updates)
    later = [row for row in updates if row["job"] > 0]
    assert later
    assert all(row["similarity"] is not None for row in later), "a node lost its client's last update"
    assert not here["updates"].equals(there["updates"]), "wall-clock time is not virtual time"
