"""Whether two commits compute the same: short experiments at both, and all they leave behind compared bit by bit.

``python tools/same_bits.py BEFORE [AFTER]`` with commits, or directories that hold a tree; AFTER is the working tree,
uncommitted changes included, if it is not given. The experiments are those of ``same_bits_runs.toml``; of the code
under test only :func:`fedmtl.config.parse_config`, ``simulations.Experiment``, ``simulations.run`` and configuration
keys are used, so that modules may move and classes be renamed between the two. The last line is ``same: N runs``, with
exit code 0, or names the runs that differ, with exit code 1.

Of each run the configuration, every column of every table, every tensor of the model and every number of the summary
are compared, except for what ``same_bits_worker.NOT_COMPARED`` names and for keys that one of the two does not write
at all, which are listed before the last line. A commit's digests are kept in ``.same_bits``.

Long because it takes trees apart from what is installed, and survives whatever a run does to its process.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import io
import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path(__file__).with_name("same_bits_runs.toml")
WORKER = Path(__file__).with_name("same_bits_worker.py")
CACHE = ROOT / ".same_bits"

_FORMAT = 2
"""To be raised when a digest comes to say something else, so that older ones are not used."""

_PATIENCE = 180
"""Seconds that a process has for an answer; it gives a run up before."""

_DOCUMENTS = ("experiment.toml:", "summary.json:", "inputs.json:")
_METADATA = ":(metadata)."
_SHOWN = 6

_SITE = """import sys
sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable__")]
"""
"""Makes every Python process, those of Ray included, forget the editable installation: it would fill a tree's gaps."""

Run = dict[str, Any]
"""A configuration, as `tables`, and the `way` in which it is run: ``""``, ``"resumed"`` or ``"ray"``."""

Record = dict[str, Any]
"""What ``same_bits_worker.py`` says of a run."""


def main() -> None:
    """Compare as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", help="a commit, or a directory")
    parser.add_argument("after", nargs="?", help="another; the working tree if not given")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="runs by name, such as 'fedqs*' or '* resumed'")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="PATTERN", help="parts, such as 'experiment.toml:model.name'"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--fresh", action="store_true", help="run commits anew whose digests are kept")
    given = parser.parse_args()
    names = [name for name in asked() if fnmatch.fnmatch(name, given.only)]
    if not names:
        sys.exit(f"no run is called {given.only!r}")
    before, after = {}, {}
    for name, record, new in digests(given.before, names, given.jobs, fresh=given.fresh):
        before[name] = record
        if new:
            say(f"before {len(before)}/{len(names)}  {name}: {spent(record)}")
    different, strange = [], set[tuple[str, str]]()
    for name, record, _ in digests(given.after, names, given.jobs, fresh=given.fresh):
        after[name] = record
        found = differences(before[name], record, given.ignore)
        say(f"after {len(after)}/{len(names)}  {name}: {spent(record)}: {listed(found) or 'same'}")
        strange |= strange_keys(before[name], record)
        if found:
            different.append(name)
    for side, records in (("before", before), ("after", after)):
        for name, message in remarks(records):
            say(f"ATTENTION, {side}: {name}: {message}")
    for side in ("before", "after"):
        if keys := sorted(key for key, only in strange if only == side):
            say(f"keys only {side}: {', '.join(keys)}")
    broken = [name for name in names if "failed" in before[name] or "failed" in after[name]]
    some = f"DIFFERENT: {len(different)} of {len(names)} runs: {', '.join(different)}"
    if broken and not different:
        some = f"FAILED alike at both: {len(broken)} of {len(names)} runs: {', '.join(broken)}"
    say(some if different or broken else f"same: {len(names)} runs")
    sys.exit(bool(different or broken))


def say(line: str) -> None:
    """Tell the user."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def spent(record: Record) -> str:
    """How long a run took, or why it failed."""
    return f"failed: {record['failed']}" if "failed" in record else f"{record['seconds']:.1f} s"


def listed(found: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def asked() -> dict[str, Run]:
    """All runs by name; ``NAME resumed`` and ``NAME ray`` are NAME in another way."""
    found = tomllib.loads(RUNS.read_text(encoding="utf-8"))
    usual, runs = found["usual"], {}
    for name, sections in found["runs"].items():
        tables = {key: usual.get(key, {}) | sections.get(key, {}) for key in usual | sections}
        runs[name] = {"tables": tables, "way": ""}
    return runs | {f"{name} {way}": runs[name] | {"way": way} for way in found["again"] for name in found["again"][way]}


def differences(before: Record, after: Record, ignored: Iterable[str] = ()) -> list[str]:
    """What of a run is not the same: ``file:column``, in a table with the first row that differs."""
    if "failed" in before or "failed" in after:
        return [] if before.get("failed") == after.get("failed") else [f"{spent(before)} before, {spent(after)} after"]
    found = []
    for part in before["parts"] | after["parts"]:
        old, new = before["parts"].get(part), after["parts"].get(part)
        if old == new or any(fnmatch.fnmatch(part, pattern) for pattern in ignored):
            continue
        if None in (old, new) and is_key(part):
            continue  # what only one of the two knows of is no result that moved; `strange_keys` lists it
        file = part.partition(":")[0]
        pairs = enumerate(zip(before["rows"].get(file, ()), after["rows"].get(file, ()), strict=False))
        row = next((number for number, (a, b) in pairs if a != b), None)
        where = " (only after)" if old is None else " (only before)" if new is None else ""
        found.append(part + (where or ("" if row is None else f" (table differs from row {row})")))
    return found


def is_key(part: str) -> bool:
    """Whether a part is a key of a document or of a file's metadata: not data, whose every column counts."""
    return part.startswith(_DOCUMENTS) or _METADATA in part


def strange_keys(before: Record, after: Record) -> set[tuple[str, str]]:
    """Keys that a run has at one commit alone, each with ``"before"`` or ``"after"``."""
    keys = [{part for part in record.get("parts", ()) if is_key(part)} for record in (before, after)]
    if not all(keys):
        return set()
    return {(key, "before") for key in keys[0] - keys[1]} | {(key, "after") for key in keys[1] - keys[0]}


def remarks(records: Mapping[str, Record]) -> Iterator[tuple[str, str]]:
    """What is wrong within one commit: runs that failed, and those that differ from their like in another way."""
    for name, record in records.items():
        plain, _, way = name.partition(" ")
        if "failed" in record:
            yield name, f"failed: {record['failed']}"
        elif way and plain in records and (found := differences(records[plain], record, ["experiment.toml:engine.*"])):
            yield name, f"not the same as {plain!r}: {listed(found)}"


# Trees


@contextlib.contextmanager
def tree_of(name: str | None) -> Iterator[Path]:
    """A directory with the sources of a commit or of the working tree (None) as they are now, or one that is there."""
    if name is not None and commit_of(name) is None:
        yield Path(name).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="same-bits-tree-") as folder:
        tree = Path(folder).resolve()
        if name is not None:
            with tarfile.open(fileobj=io.BytesIO(git("archive", name))) as archive:
                archive.extractall(tree, filter="data")
        else:
            for file in git("ls-files", "-z", "--cached", "--others", "--exclude-standard").decode().split("\0"):
                if (ROOT / file).is_file():
                    (tree / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / file, tree / file)
        yield tree


def commit_of(name: str | None) -> str | None:
    """The full name of a commit; None for what is no commit but a directory, or the working tree."""
    if name is None or (Path(name) / "fedmtl").is_dir():
        return None
    try:
        return git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()
    except subprocess.CalledProcessError:
        sys.exit(f"{name!r} is neither a commit nor a directory with this project in it")


def git(*arguments: str) -> bytes:
    """What git says of this repository."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, stdout=subprocess.PIPE).stdout


def digests(name: str | None, names: Sequence[str], jobs: int, *, fresh: bool) -> Iterator[tuple[str, Record, bool]]:
    """Each run of a tree, its record and whether it was run now: the records of a commit are kept."""
    commit, runs = commit_of(name), asked()
    place = here()
    keys = {run: hashlib.sha256(f"{place} {json.dumps(runs[run])}".encode()).hexdigest()[:16] for run in names}
    file = CACHE / f"{commit}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if commit and file.exists() else {}
    known = {} if fresh else {run: kept[run] for run, key in keys.items() if kept.get(run, {}).get("key") == key}
    if known:
        say(f"{name}: {len(known)} of {len(names)} runs are known from {file.relative_to(ROOT)}")
    yield from ((run, record, False) for run, record in known.items())
    missing = [run for run in names if run not in known]
    if not missing:
        return
    try:
        with tree_of(name) as tree:
            for run, record in measured(tree, {run: runs[run] for run in missing}, jobs):
                if "failed" not in record:
                    kept[run] = {"key": keys[run], **record}
                yield run, record, True
    finally:
        if commit:
            CACHE.mkdir(exist_ok=True)
            temporary = file.with_suffix(".tmp")
            temporary.write_text(json.dumps(kept), encoding="utf-8")
            temporary.replace(file)


def here() -> str:
    """What digests depend on besides the sources: their format, packages, and the kind of processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    processor = next((line for line in lines if line.startswith("model name")), platform.processor())
    return " ".join((str(_FORMAT), platform.python_version(), version("torch"), version("numpy"), processor))


# Processes that run experiments


def measured(tree: Path, runs: Mapping[str, Run], jobs: int) -> Iterator[tuple[str, Record]]:
    """Each run with its record, as they come, from so many processes."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, Record]] = queue.SimpleQueue()
    for name in runs:
        waiting.put(name)

    def work(folder: Path) -> None:
        worker: Worker | None = None
        with contextlib.suppress(queue.Empty):
            while not over.is_set():
                name = waiting.get_nowait()
                worker = worker if worker is not None and worker.alive else Worker(tree, folder)
                done.put((name, worker.ask(runs[name])))
        if worker is not None:
            worker.close()

    over = threading.Event()
    with tempfile.TemporaryDirectory(prefix="same-bits-runs-", ignore_cleanup_errors=True) as folder:
        threads = [threading.Thread(target=work, args=[Path(folder) / str(place)]) for place in range(jobs)]
        try:
            for thread in threads:
                thread.start()
            for _ in runs:
                yield done.get(timeout=2 * _PATIENCE)
        finally:
            over.set()
            for thread in threads:
                thread.join()


class Worker:
    """A process that runs one experiment after another with the sources of a tree.

    Parameters
    ----------
    tree
        The tree.
    folder
        Where it may write.
    """

    def __init__(self, tree: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
        self._log = folder / "log"
        path = os.pathsep.join(map(str, (folder, tree)))
        settings = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER), str(tree), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env=os.environ | settings,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it can be asked for another run."""
        return self._process.poll() is None

    def ask(self, run: Run) -> Record:
        """Have a run done; returns its record."""
        guard = threading.Timer(_PATIENCE, self._kill)
        guard.start()
        try:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(run) + "\n")
            self._process.stdin.flush()
            record: Record = json.loads(self._process.stdout.readline())
            return record
        except (OSError, ValueError):
            self._process.wait()
            last = self._log.read_text(errors="replace").strip().rpartition("\n")[2]
            return {"failed": f"the process ended with {self._process.returncode}: {last}"}
        finally:
            guard.cancel()

    def close(self) -> None:
        """End it."""
        self._kill()
        self._process.communicate()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
