"""Studies that ship with FedMTL: a TOML file each beside this module, called by the file's name."""

from __future__ import annotations

from pathlib import Path


def shipped_studies() -> dict[str, Path]:
    """Their files by name."""
    return {file.stem: file for file in sorted(Path(__file__).parent.glob("*.toml"))}
