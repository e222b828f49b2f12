"""Paths in a configuration, and what a relative one is relative to.

A path that stands in a TOML file is relative to the file's folder, one that is set on the command line or from Python
to the working directory, and one in a text that was sent over a network to nothing: it must be absolute. Which options
are paths only their builders know (``Param(path=True)``), and these are asked late, when a file, the axes of a study
and the command line have been laid over each other. So every text remembers where it was written until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmtl.errors import ConfigError


class Written(str):
    """A text of a configuration that knows where it was written.

    Attributes
    ----------
    folder
        What it is relative to if it is a path, absolute; None if it lies in no folder.
    """

    folder: Path | None = None


def written(value: Any, folder: Path | None) -> Any:
    """A copy of tables in which every text knows its folder; one that knows it already keeps it."""
    if isinstance(value, Mapping):
        return {key: written(entry, folder) for key, entry in value.items()}
    if isinstance(value, list):
        return [written(entry, folder) for entry in value]
    if isinstance(value, str) and not isinstance(value, Written):
        value = Written(value)
        value.folder = folder
    return value


def working_directory() -> Path:
    """The working directory; where it was removed meanwhile, a relative path that no file can be found under."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path()


def absolute(text: str, key: str) -> str:
    """The absolute path that an option names.

    Parameters
    ----------
    text
        The option's value; a text that does not know where it was written is relative to the working directory.
    key
        Its key, for the message.

    Raises
    ------
    ConfigError
        If it is relative and lies in no folder.
    """
    path = Path(text)
    if path.is_absolute():
        return str(path)
    folder = text.folder if isinstance(text, Written) else working_directory()
    if folder is None:
        raise ConfigError(
            f"{key} = {str(text)!r}: is relative, and a configuration that is sent lies in no folder: write an "
            "absolute path that is right on every machine, or send the path of a TOML file that it is relative to"
        )
    return str(folder / path)
