"""What is left of a Ray that was killed, or whose driver was: real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from simulations.workers.reaper import MARK, _marked, end_marked, new_mark, watch

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere Ray ends its processes itself")

DRIVER = """
from fedmtl.errors import UserError
from simulations import Experiment
from simulations.runner import new_workers
experiment = Experiment.load(None, ["data.clients=4", "model.name=linear", "engine.workers=ray", "engine.count=1"])
for attempt in range(2):
    try:
        new_workers(experiment, experiment.config.engine)
    except UserError as error:
        print(str(error).replace(chr(10), " "), flush=True)
    else:
        print("ready", flush=True)
        input()
"""


def of_ray(driver: int) -> dict[int, str]:
    """The processes of the Ray that a process started, by their ids: what each was started as."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            marks = [entry for entry in (path / "environ").read_bytes().split(b"\0") if entry.startswith(MARK.encode())]
            if any(mark.startswith(f"{MARK}={driver}-".encode()) for mark in marks):
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def agents(driver: int, *names: str) -> list[int]:
    """Those processes of its Ray that have one of these names."""
    return [id for id, line in of_ray(driver).items() if any(name in line for name in names)]


def within(seconds: float, condition: Callable[[], object]) -> object:
    end = time.monotonic() + seconds
    while not (there := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return there


@pytest.mark.slow("ray")
def test_a_start_without_an_agent_is_told_and_left_clean_and_so_is_a_killed_driver() -> None:
    """One process for both: its first Ray loses an agent while it starts, its second one loses the process."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as driver:
        try:
            assert driver.stdout is not None
            assert driver.stderr is not None
            assert within(120, lambda: agents(driver.pid, "runtime_env/agent"))
            os.kill(agents(driver.pid, "runtime_env/agent")[0], signal.SIGKILL)
            first = of_ray(driver.pid)
            message = driver.stdout.readline()  # which takes half a minute, for so long Ray waits
            assert message.startswith("Ray did not start: ")
            assert 'train in this process (engine.workers = "inline")' in message
            assert within(20, lambda: not first.keys() & of_ray(driver.pid).keys()), of_ray(driver.pid)
            assert driver.stdout.readline() == "ready\n"
            # As they are started, and call themselves later; they would stay for good.
            assert within(60, lambda: agents(driver.pid, "dashboard/agent", "DashboardAgent"))
            driver.kill()
            assert within(20, lambda: not of_ray(driver.pid)), of_ray(driver.pid)
            assert "Traceback" not in driver.stderr.read()
        finally:
            driver.kill()


def test_only_processes_with_the_mark_are_ended() -> None:
    mark, other = new_mark(), new_mark()
    with (
        subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: mark}) as marked,
        subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: other}) as unmarked,
    ):
        try:
            assert within(5, lambda: list(_marked(mark)) == [marked.pid])
            assert end_marked(mark) == 1
            assert marked.wait() == -signal.SIGKILL
            assert unmarked.poll() is None
        finally:
            unmarked.kill()
            marked.kill()


WATCHED = """
import os, subprocess, sys
from simulations.workers.reaper import MARK, watch
child = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: sys.argv[1]})
reaper = watch(sys.argv[1])
print(child.pid, reaper.pid, flush=True)
input()
"""


def test_what_a_killed_process_had_started_ends_within_seconds_and_what_watched_it_does_too() -> None:
    mark = new_mark()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", WATCHED, mark], env=environment, stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout is not None
        child, reaper = map(int, process.stdout.readline().split())
        assert within(5, lambda: list(_marked(mark)) == [child])
        process.kill()
    assert within(10, lambda: not list(_marked(mark)))
    assert Path(f"/proc/{reaper}").exists()  # processes that were being started may still appear


def test_what_watches_ends_with_its_ray_at_the_latest_and_is_no_process_of_another() -> None:
    outer = new_mark()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, outer)
        reaper = watch(new_mark())
    assert reaper is not None
    assert list(_marked(outer)) == []
    reaper.kill()
    reaper.wait()
