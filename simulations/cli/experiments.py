"""From what the user typed to an experiment, or to an error that says where the fault stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedmtl.config import parse_config, read_toml
from fedmtl.errors import ConfigError
from simulations.experiment import Experiment


def load_experiment(path: Path | None, assignments: Sequence[str], seed: int | None) -> Experiment:
    """The experiment of a file, or the main job, with ``section.key=value`` assignments and a seed.

    Raises
    ------
    ConfigError
        If anything in it is wrong; each line of the message names the file or the assignment it comes from.
    """
    where = "" if path is None else str(path)
    overrides = list(assignments) if seed is None else [*assignments, f"seed={seed}"]
    config = parse_config({} if path is None else read_toml(path), overrides, where=where)
    try:
        return Experiment(config)
    except ConfigError as error:
        lines = [_with_origin(line, where, overrides) for line in str(error).splitlines()]
        raise ConfigError("\n".join(lines)) from None


def _with_origin(line: str, where: str, overrides: Sequence[str]) -> str:
    key = line.partition(" ")[0]
    origin = next((f"--set {text}" for text in reversed(overrides) if text.partition("=")[0].strip() == key), where)
    return f"{origin}: {line}" if origin else line
