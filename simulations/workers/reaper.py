"""Ends what a Ray leaves behind whose driver was killed: a small process beside the driver, run as a script.

Ray's servers die with the driver that started them, but the workers and agents that these have started do not, and
agents stay for good. All of them inherit a mark in their environment, by which they are found; they are ended by their
ids. Only Linux shows environments; on other systems Ray itself ends what it started, as well as it can.

Needs nothing but Python itself, as the process shall be small and start at once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "FEDMTL_RAY"
"""The environment variable that a Ray's processes have, with a value of its own for each Ray."""

_PROCESSES = Path("/proc")
_POLL = 0.5
_PATIENCE = 10.0  # seconds in which processes may still appear that were being started when the driver died


def new_mark() -> str:
    """A value for the mark that no other Ray has."""
    return f"{os.getpid()}-{secrets.token_hex(8)}"


def watch(mark: str) -> subprocess.Popen[bytes] | None:
    """Start the process that ends all processes with this mark once this one is dead; None where there is no need."""
    if not sys.platform.startswith("linux"):
        return None
    # Without the mark of a Ray that this process may itself be a worker of, and out of reach of the terminal's Ctrl-C.
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), mark]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        command, env=environment, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
    )


def end_marked(mark: str) -> int:
    """End every process that has the mark; how many there were."""
    found = list(_marked(mark))
    for process in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)
    return len(found)


def _marked(mark: str) -> Iterator[int]:
    """The ids of the processes that have the mark; not this one's, which may be a worker of the same Ray."""
    entry = f"{MARK}={mark}".encode()
    for path in _PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if entry in (path / "environ").read_bytes().split(b"\0") and int(path.name) != os.getpid():
                yield int(path.name)


def _main(driver: int, mark: str) -> None:
    while os.getppid() == driver:
        time.sleep(_POLL)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        end_marked(mark)
        time.sleep(_POLL)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
