"""From what the user typed to an experiment, or to an error that says where the fault stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmtl.config import parse_config, read_toml
from fedmtl.errors import ConfigError, UserError
from simulations.directory import EXPERIMENT
from simulations.experiment import Experiment
from simulations.presets import preset_tables, presets
from simulations.studies.shipped import shipped_studies


@dataclass(frozen=True)
class Wanted:
    """Which experiment the user asks for; the main job, if nothing is said.

    Attributes
    ----------
    path
        EXPERIMENT.toml.
    preset
        The name of an experiment that ships with FedMTL, instead of a file.
    assignments
        ``section.key=value``, each laid over what is there.
    seed
        The last word on the seed.

    Raises
    ------
    UserError
        If there are both a file and a preset.
    """

    path: Path | None = None
    preset: str | None = None
    assignments: Sequence[str] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.path is not None and self.preset is not None:
            raise UserError(
                f"--preset {self.preset} is an experiment by itself; leave out {self.path}, or print the preset into a "
                f"file of your own with fedmtl presets {self.preset}"
            )

    @property
    def given(self) -> dict[str, object]:
        """What the user said of the experiment, by the names on the command line."""
        said = {
            "EXPERIMENT.toml": self.path,
            "--preset": self.preset,
            "--set": self.assignments,
            "--seed": self.seed,
        }
        return {name: value for name, value in said.items() if value not in (None, (), [])}

    def load(self, *further: str) -> Experiment:
        """The experiment, with further assignments.

        Raises
        ------
        ConfigError
            If anything in it is wrong; each line of the message names the file, the preset or the assignment it comes
            from.
        """
        overrides = [*self.assignments, *further, *([] if self.seed is None else [f"seed={self.seed}"])]
        if self.preset is not None:
            where, tables = f"preset {self.preset}", preset_tables(self.preset)
        else:
            where, tables = ("", {}) if self.path is None else (str(self.path), _read(self.path))
        config = parse_config(tables, overrides, where=where)
        try:
            return Experiment(config)
        except ConfigError as error:
            lines = [_with_origin(line, where, overrides) for line in str(error).splitlines()]
            raise ConfigError("\n".join(lines)) from None


def _read(path: Path) -> dict[str, Any]:
    """The tables of an experiment's file.

    Raises
    ------
    ConfigError
        If it cannot be read, or is something else that the user may have meant; says how that is asked for.
    """
    if path.is_dir():
        held = f"; to go on with its run, use --resume {path}" if (path / EXPERIMENT).is_file() else ""
        raise ConfigError(f"cannot read {path}: it is a directory{held}")
    if not path.exists() and (remedy := _meant_by(str(path))):
        raise ConfigError(f"there is no file {path}; {remedy}")
    tables = read_toml(path)
    if "axes" in tables:
        raise ConfigError(f"{path} is a study, not an experiment: run it with fedmtl study {path}")
    return tables


def _meant_by(name: str) -> str:
    """How what ships with FedMTL under this name is asked for; nothing if nothing does."""
    if name in presets():
        return f"the preset of that name is run with fedmtl run --preset {name}"
    return f"the study of that name is run with fedmtl study {name}" if name in shipped_studies() else ""


def _with_origin(line: str, where: str, overrides: Sequence[str]) -> str:
    key = line.partition(" ")[0]
    origin = next((f"--set {text}" for text in reversed(overrides) if text.partition("=")[0].strip() == key), where)
    return f"{origin}: {line}" if origin else line
