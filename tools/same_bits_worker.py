"""The process behind ``same_bits.py``: runs experiments with whatever tree is on the path, and digests what they leave.

It reads lines of JSON, ``{"tables": ..., "way": ...}``, and answers each with the record of a run: `parts`, a digest
for each ``file:column``; `rows`, for each table one for each row; `seconds`; or instead why it `failed`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

NOT_COMPARED = ("wall_seconds", "ntk_seconds", "packages", "directory", "results")
"""Keys of ``summary.json`` that hold the real clock, versions of packages, a folder named by these versions, and the
number that says whether results may have changed."""

SECONDS = 120
"""What a run may take."""

STOP_AFTER = 3
"""The version after which a run that is to be resumed is interrupted."""

Record = dict[str, Any]


def serve(tree: Path, folder: Path) -> None:
    """Answer requests with records until there are no more.

    Parameters
    ----------
    tree
        Where the project is to be imported from.
    folder
        Where files may be written.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed goes to the log

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the run takes more than {SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    inputs = folder / "inputs"
    write_inputs(inputs)
    for line in sys.stdin:
        request = json.loads(line.replace("{inputs}", str(inputs)))
        signal.alarm(SECONDS)
        started = time.perf_counter()
        try:
            shutil.rmtree(folder / "place", ignore_errors=True)
            conduct(request["tables"], folder / "place" / "run", request["way"])
            check_origin(tree)
            record = contents(folder / "place" / "run", str(folder))
        except Exception as error:
            record = {"failed": f"{type(error).__name__}: {error}".replace(str(folder), "")}
        signal.alarm(0)
        answers.write(json.dumps({**record, "seconds": time.perf_counter() - started}) + "\n")
        answers.flush()


def write_inputs(folder: Path) -> None:
    """The files that some experiments read: a text for twelve speakers, and the speeds of twelve devices."""
    import numpy as np

    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    tokens, speakers = rng.integers(10, size=(600, 9)), rng.integers(12, size=600)
    np.savez(folder / "tokens.npz", text=tokens[:, :8], next=tokens[:, 8], speaker=speakers)
    lines = [f"{client},{0.5 + client % 5}" for client in range(12)]
    (folder / "speeds.csv").write_text("\n".join(["client,seconds_per_step", *lines]) + "\n", encoding="utf-8")


def conduct(tables: dict[str, Any], out: Path, way: str) -> None:
    """Run an experiment, in one go or another way."""
    from fedmtl.config import parse_config
    from simulations import Experiment, run

    if way == "ray":
        tables = {**tables, "engine": {"workers": "ray", "count": 2}}

    def once(observer: Counting, *, resume: bool = False) -> Any:
        experiment = Experiment(parse_config(tables))
        return run(experiment, out, resume=resume, observers=[observer], pictures=False)  # type: ignore[list-item]

    first = Counting(STOP_AFTER if way == "resumed" else 0)
    result = once(first)
    if way == "resumed":
        if not result.interrupted:
            raise RuntimeError("the run went on after SIGINT")
        second = Counting()
        result = once(second, resume=True)
        if first.versions + second.versions != result.summary["versions"]:
            raise RuntimeError("the resumed run did not go on where it was interrupted")


class Counting:
    """Observes a run: counts its versions, and sends this process SIGINT after so many of them (0: never).

    It has whatever hooks a run may call, by name, and is an instance of nothing that may move.
    """

    def __init__(self, stop_after: int = 0) -> None:
        self.versions = 0
        self._stop_after = stop_after

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments, **options: None

    def on_aggregation(self, *arguments: Any) -> None:
        """Count."""
        self.versions += 1

    def after_event(self, *arguments: Any) -> None:
        """Interrupt, once."""
        if 0 < self._stop_after <= self.versions:
            self._stop_after = 0
            signal.raise_signal(signal.SIGINT)


def check_origin(tree: Path) -> None:
    """See that what this process imported of the project is of the tree.

    Raises
    ------
    ImportError
        If a module is not.
    """
    packages = {init.parent.name for init in tree.glob("*/__init__.py")}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in packages and file and not Path(file).resolve().is_relative_to(tree):
            raise ImportError(f"{name} was imported from elsewhere than the tree under test")


# Digests


def contents(run: Path, private: str) -> Record:
    """Digests of what a run left behind, but for its checkpoint; the path `private` is taken out of texts."""
    parts: dict[str, str] = {}
    rows: dict[str, list[str]] = {}
    for file in sorted(path for path in run.rglob("*") if path.is_file()):
        name = file.relative_to(run).as_posix()
        if name.startswith("checkpoint/"):
            continue
        if file.suffix == ".parquet":
            found, rows[name] = table_digests(file)
        elif file.suffix == ".safetensors":
            found = dict(tensor_digests(file))
        elif file.suffix in (".json", ".toml"):
            text = file.read_text(encoding="utf-8").replace(private, "")
            read = json.loads if file.suffix == ".json" else tomllib.loads
            found = {key: digest(value) for key, value in leaves(read(text))}
        else:
            found = {"": digest(file.read_bytes())}
        parts |= {f"{name}:{key}" if key else name: value for key, value in found.items()}
    return {"parts": parts, "rows": rows}


def table_digests(file: Path) -> tuple[dict[str, str], list[str]]:
    """Of each column, with its type and the table's metadata; and of each row."""
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    columns = {name: [bits(value) for value in table[name].to_pylist()] for name in sorted(table.column_names)}
    found = {name: digest(str(table.schema.field(name).type), *cells) for name, cells in columns.items()}
    found |= {f"(metadata).{key.decode()}": digest(value) for key, value in (table.schema.metadata or {}).items()}
    return found, [digest(*row)[:8] for row in zip(*columns.values(), strict=True)]


def tensor_digests(file: Path) -> Iterator[tuple[str, str]]:
    """Of each tensor, with its type and shape, and of what the header says besides."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        for key, value in (opened.metadata() or {}).items():
            yield f"(metadata).{key}", digest(value)
        for name in sorted(opened.keys()):
            tensor = opened.get_tensor(name)
            yield name, digest(str(tensor.dtype), tensor.shape, tensor.tobytes())


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a document, with their dotted keys."""
    if isinstance(value, dict | list) and value:
        for name, entry in value.items() if isinstance(value, dict) else enumerate(value):
            if name not in NOT_COMPARED:
                yield from leaves(entry, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def digest(*values: Any) -> str:
    """A fingerprint of values."""
    whole = hashlib.sha256()
    for data in map(bits, values):
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()[:16]


def bits(value: Any) -> bytes:
    """A value's bytes; a float's raw ones, so that NaN is itself and -0.0 is not 0.0."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, list):
        return b"[" + b",".join(map(bits, value)) + b"]"
    return repr(value).encode()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
