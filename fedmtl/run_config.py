"""The experiment of a Flower run's configuration: the same configuration on the server and on every node."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedmtl.config import ExperimentConfig, parse_config, read_toml
from fedmtl.errors import ConfigError


def experiment_config(run_config: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment of a run configuration.

    Parameters
    ----------
    run_config
        Its key ``experiment`` holds TOML (anything with a line break or an equals sign) or the path of a TOML file,
        which must then be on the server and on every node; empty for the defaults. Its key ``set`` holds
        ``section.key=value`` overrides, with semicolons or line breaks between them. Paths in the file are relative to
        its folder; those in sent text must be absolute.

    Raises
    ------
    ConfigError
        If the TOML or the file cannot be read, or a key or a value is wrong. A relative path is refused when options
        are checked.
    """
    experiment, overrides = str(run_config.get("experiment", "")), str(run_config.get("set", ""))
    assignments = [part.strip() for part in overrides.replace("\n", ";").split(";") if part.strip()]
    return parse_config(_tables(experiment), assignments, where="the run configuration", sent=True)


def _tables(experiment: str) -> dict[str, Any]:
    if not experiment.strip():
        return {}
    if "\n" not in experiment and "=" not in experiment:
        return read_toml(Path(experiment.strip()))
    try:
        return tomllib.loads(experiment)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the run configuration's key 'experiment' is not valid TOML: {error}") from None
