"""A soak is many small pieces, each done in a process of its own and written down: it goes on where it was cut."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

GOOD = ("success", "refusal")
"""Outcomes that are as they should be. Any other is a fault."""

_PATIENCE = 10
"""So many times its processor time a piece may take on the wall."""


@dataclass(frozen=True)
class Outcome:
    """What became of a piece.

    Attributes
    ----------
    part, number
        Which piece: number `number` of its part.
    outcome
        ``"success"``, ``"refusal"`` (with a clear message), or what is wrong: ``"traceback"``, ``"stuck"``, ``"died"``,
        or a word of the part's own.
    about
        What was done, as a user would write it.
    said
        The message, or what is wrong in detail.
    figures
        What was measured.
    seconds
        What it took.
    """

    part: str
    number: int
    outcome: str
    about: str = ""
    said: str = ""
    figures: dict[str, Any] | None = None
    seconds: float = 0.0


class Fault(Exception):  # noqa: N818 (the fault is in what a piece tried)
    """A piece found something that is not as it should be.

    Parameters
    ----------
    outcome
        A word for it.
    said
        What it is.
    """

    def __init__(self, outcome: str, said: str) -> None:
        super().__init__(said)
        self.outcome = outcome


@dataclass(frozen=True)
class Piece:
    """One thing to do.

    Attributes
    ----------
    part, number
        Which.
    about
        What is done, as a user would write it.
    do
        Does it in the folder that it is given, and returns the outcome and its figures.

    Raises (from `do`)
    ------------------
    Fault
        If something is not as it should be.
    """

    part: str
    number: int
    about: str
    do: Callable[[Path], tuple[str, str, dict[str, Any]]]


class Log:
    """The outcomes of a soak, a line of JSON each; a line that a kill cut in two is done again.

    Parameters
    ----------
    path
        The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.outcomes = list(self._read())

    def _read(self) -> Iterator[Outcome]:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for line in lines:
            try:
                yield Outcome(**json.loads(line))
            except (ValueError, TypeError):
                continue

    def has(self, piece: Piece) -> bool:
        """Whether the piece has been done."""
        return any((one.part, one.number) == (piece.part, piece.number) for one in self.outcomes)

    def add(self, outcome: Outcome) -> None:
        """Write an outcome down."""
        self.outcomes.append(outcome)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(asdict(outcome)))


def done(pieces: Iterable[Piece], log: Log, *, workers: int, seconds: float) -> Generator[Outcome, None, None]:
    """Do the pieces that the log does not have, several at a time, each in a process forked for it.

    Parameters
    ----------
    pieces
        What is to be done.
    log
        Takes each outcome.
    workers
        How many at a time.
    seconds
        Processor time that a piece may take before it counts as stuck, or ten times as long on the wall, for on a busy
        machine nothing is stuck.
    """
    todo = iter([piece for piece in pieces if not log.has(piece)])
    at_work: dict[Connection, tuple[Piece, Any, float]] = {}
    fork = multiprocessing.get_context("fork")
    try:
        while True:
            while len(at_work) < workers and (piece := next(todo, None)) is not None:
                ours, theirs = fork.Pipe(duplex=False)
                process = fork.Process(target=_do, args=(piece, theirs, seconds))
                process.start()
                theirs.close()
                at_work[ours] = piece, process, time.monotonic() + _PATIENCE * seconds + 30
            if not at_work:
                return
            ready = wait(list(at_work), timeout=5.0)
            late = [ours for ours, (_, _, end) in at_work.items() if ours not in ready and time.monotonic() > end]
            for ours in [*ready, *late]:
                assert isinstance(ours, Connection)
                piece, process, _ = at_work.pop(ours)
                outcome = _heard(piece, ours, process, stuck=ours in late)
                log.add(outcome)
                yield outcome
    finally:
        # Who ends a soak shall not wait for what is at work: it is done again.
        for _, process, _ in at_work.values():
            _end(process)
            process.join()


def _end(process: Any) -> None:
    """End a piece's process and those that it started; one that has just begun has no group of its own yet."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _heard(piece: Piece, ours: Connection, process: Any, *, stuck: bool) -> Outcome:
    try:
        if not stuck:
            outcome: Outcome = ours.recv()
            return outcome
        _end(process)
        return Outcome(piece.part, piece.number, "stuck", piece.about, "it did not even heed its alarm")
    except EOFError:
        process.join()
        return Outcome(piece.part, piece.number, "died", piece.about, f"exit code {process.exitcode}")
    finally:
        ours.close()
        process.join()


def _do(piece: Piece, theirs: Connection, seconds: float) -> None:
    """In the process of a piece: do it, and tell."""
    os.setpgid(0, 0)
    from fedmtl.errors import UserError

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it takes more than {seconds:g} s of processor time, or {_PATIENCE * seconds:g} s in all")

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, seconds), signal.ITIMER_REAL: (signal.SIGALRM, _PATIENCE * seconds)}
    for timer, (number, limit) in timers.items():
        signal.signal(number, too_long)
        signal.setitimer(timer, limit)
    folder, started = Path(tempfile.mkdtemp(prefix="soak-")), time.monotonic()
    figures: dict[str, Any] = {}
    try:
        outcome, said, figures = piece.do(folder)
    except Fault as failure:
        outcome, said = failure.outcome, str(failure)
    except UserError as error:
        outcome, said = ("refusal", str(error)) if str(error).strip() else ("traceback", "an error without a message")
    except TimeoutError as error:
        outcome, said = "stuck", f"{error}\n{traceback.format_exc()}"
    except BaseException:
        outcome, said = "traceback", traceback.format_exc()
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        shutil.rmtree(folder, ignore_errors=True)
    took = time.monotonic() - started
    theirs.send(Outcome(piece.part, piece.number, outcome, piece.about, said, figures, round(took, 2)))
    theirs.close()


def commit(root: Path) -> str:
    """The commit that is soaked; with a plus if files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
