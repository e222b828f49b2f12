"""The files and folders that an experiment reads count by their contents: a moved one is the same."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedmtl.errors import DataError, RunDirectoryError
from fedmtl.files import replacing

INPUTS = "inputs.json"


@dataclass(frozen=True)
class Input:
    """A file or folder that is read.

    Attributes
    ----------
    path
        Where it lies, absolute.
    sha256
        Of the file's contents; of a folder, of the names and contents of its files.
    files
        The files of a folder: name, relative to it, and SHA-256 of the contents.
    """

    path: str
    sha256: str
    files: Mapping[str, str] = field(default_factory=dict)


def read_input(key: str, path: str) -> Input:
    """The file or folder that an option names.

    Contents are read once in a process, as long as size, time of change and place on the disk stay. Of a folder, files
    ``cache-*.arrow`` do not count, as `datasets` leaves them beside a data set whenever somebody works with it.

    Parameters
    ----------
    key
        The option, for messages.
    path
        Its value, absolute.

    Raises
    ------
    DataError
        If it is not there, or cannot be read.
    """
    place = Path(path)
    try:
        if not place.is_dir():
            return Input(path, _sha256(place))
        found = [file for file in place.rglob("*") if file.is_file() and not file.match("cache-*.arrow")]
        files = {name: _sha256(place / name) for name in sorted(file.relative_to(place).as_posix() for file in found)}
    except FileNotFoundError:
        raise DataError(f"{key} = {path!r}: there is no such file or folder") from None
    except OSError as error:
        raise DataError(f"{key} = {path!r}: cannot be read: {error.strerror}") from None
    return Input(path, hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(), files)


def _sha256(path: Path) -> str:
    about = path.stat()
    return _contents(path, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=65536)
def _contents(path: Path, *about: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def by_contents(tables: Mapping[str, Any], inputs: Mapping[str, Input]) -> dict[str, Any]:
    """A complete configuration with the SHA-256 of every file and folder in place of its path.

    Parameters
    ----------
    tables
        The configuration, by section.
    inputs
        What is read, by ``section.key``.
    """
    changed = dict(tables)
    for name, read in inputs.items():
        section, key = name.split(".")
        changed[section] = {**changed[section], key: read.sha256}
    return changed


def write_inputs(directory: Path, inputs: Mapping[str, Input]) -> None:
    """Write what an experiment reads into the directory of its run, if it reads anything.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    if inputs:
        with replacing(directory / INPUTS) as temporary:
            text = json.dumps({key: asdict(read) for key, read in inputs.items()}, indent=2)
            temporary.write_text(text, encoding="utf-8")


def recorded_inputs(directory: Path) -> dict[str, Input] | None:
    """What the experiment of a run read; None if the run kept nothing about it.

    Raises
    ------
    RunDirectoryError
        If that is damaged.
    """
    path = directory / INPUTS
    if not path.exists():
        return None
    try:
        return {key: Input(**read) for key, read in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunDirectoryError(f"{path} is damaged ({error}); start the run again") from None


def refuse_changes(key: str, now: Input, then: Input, directory: Path) -> None:
    """See whether what an option names is what the run in a directory began with.

    Raises
    ------
    DataError
        If it is not; names the file.
    """
    if now.sha256 == then.sha256:
        return
    names = sorted(name for name in {**now.files, **then.files} if now.files.get(name) != then.files.get(name))
    place = str(Path(now.path) / names[0]) if names else now.path
    raise DataError(
        f"{key}: {place} has changed since the run in {directory} began; put back what was there, or start a new run"
    )
