"""Presets: experiments that ship with FedMTL, a TOML file each beside this module, called by the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedmtl.config import read_toml
from fedmtl.config_errors import did_you_mean
from fedmtl.errors import ConfigError

_FOLDER = Path(__file__).parent


def presets() -> dict[str, str]:
    """The presets by name, each with what its first line says it is."""
    files = sorted(_FOLDER.glob("*.toml"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for file in files}


def preset_file(name: str) -> Path:
    """The file of the preset of that name.

    Raises
    ------
    ConfigError
        If there is none; names the nearest, and all that there are.
    """
    known = presets()
    if name not in known:
        raise ConfigError(f"there is no preset {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
    return _FOLDER / f"{name}.toml"


def preset_tables(name: str) -> dict[str, Any]:
    """The configuration of the preset of that name, as TOML tables.

    Raises
    ------
    ConfigError
        If there is none; names the nearest, and all that there are.
    """
    return read_toml(preset_file(name))
