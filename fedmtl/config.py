"""The configuration of an experiment: one TOML file, every key with a default.

The sections `data`, `model`, `devices`, `strategy` and `balancing` name a component and may hold that component's own options
beside the keys given here; :mod:`fedmtl.components` checks those against the component's signature.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmtl.components import did_you_mean, explain
from fedmtl.errors import ConfigError

Positive = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class _ComponentSection(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, validate_default=True)

    @property
    def options(self) -> dict[str, Any]:
        """The component's own options, as given."""
        return dict(self.model_extra or {})


class DataSection(_ComponentSection):
    """Where the examples come from and how they are spread over the clients."""

    source: str = "digits"
    clients: Positive = 100
    partition: str = "dirichlet"
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2


class TasksSection(_Section):
    """Which tasks are learned, and which client owns which."""

    names: list[str] | None = None
    ownership: Literal["all", "random", "disjoint", "skewed"] = "all"


class ModelSection(_ComponentSection):
    """The shared backbone."""

    name: str = "mlp"


class DevicesSection(_ComponentSection):
    """How fast the clients' devices are."""

    kind: str = "uniform"


class StrategySection(_ComponentSection):
    """The server's strategy."""

    name: str = "fedqs"


class BalancingSection(_ComponentSection):
    """How tasks are weighted against each other."""

    name: str = "ntkmtl-sr"


class TrainingSection(_Section):
    """Local training."""

    epochs: Positive = 2
    batch_size: Positive = 50
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Annotated[float, Field(ge=0)] = 20.0
    proximal: Annotated[float, Field(ge=0)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class EngineSection(_Section):
    """Where clients train in a simulation."""

    workers: Literal["inline", "ray"] = "inline"
    count: Positive = 1
    device: str = "cpu"


class TargetSection(_Section):
    """Stop when a task's metric on the test set reaches a value."""

    task: str
    value: float


class StopSection(_Section):
    """When the run ends: at the first of these that is reached."""

    versions: Positive | None = 400
    time: Annotated[float, Field(gt=0)] | None = None
    updates: Positive | None = None
    target: TargetSection | None = None


class RecordsSection(_Section):
    """What a run leaves behind."""

    dir: str = "runs"
    evaluate_every: Positive = 10
    checkpoint_every: Positive = 50


class ExperimentConfig(BaseModel):
    """A complete experiment."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "fedqs-digits"
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSection = DataSection()
    tasks: TasksSection = TasksSection()
    model: ModelSection = ModelSection()
    devices: DevicesSection = DevicesSection()
    strategy: StrategySection = StrategySection()
    balancing: BalancingSection = BalancingSection()
    training: TrainingSection = TrainingSection()
    engine: EngineSection = EngineSection()
    stop: StopSection = StopSection()
    records: RecordsSection = RecordsSection()


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises
    ------
    ConfigError
        If the file cannot be read or is not TOML; the message names the file and the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a valid TOML file: {error}") from None


def set_key(tables: dict[str, Any], assignment: str) -> None:
    """Apply one ``section.key=value``; the value is read as TOML, and as a plain string where it is not TOML."""
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {assignment}: write section.key=value, such as devices.ratio=20")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, key = path.strip().split(".")
    table = tables
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {assignment}: {parent} is not a section")
    table[key] = value


def parse_config(tables: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "") -> ExperimentConfig:
    """An experiment from TOML tables and ``section.key=value`` overrides.

    Raises
    ------
    ConfigError
        If a key, type or value is wrong; names each key, and `where` it was found.
    """
    merged = _copy_tables(tables)
    for assignment in overrides:
        set_key(merged, assignment)
    try:
        return ExperimentConfig.model_validate(merged)
    except ValidationError as error:
        lines = [line for fault in _by_section(error) for line in fault]
        raise ConfigError("\n".join([f"{where}:" if where else "the configuration is wrong:", *lines])) from None


def _by_section(error: ValidationError) -> list[list[str]]:
    """Faults explained with the keys that their own section knows."""
    groups = []
    for fault in error.errors():
        *parents, _ = fault["loc"] or ("",)
        model: Any = ExperimentConfig
        for parent in parents:
            field = getattr(model, "model_fields", {}).get(parent)
            model = field.annotation if field is not None else None
        single = ValidationError.from_exception_data(
            "", [{"type": fault["type"], "loc": fault["loc"], "input": fault["input"], "ctx": fault.get("ctx", {})}]
        )  # type: ignore[typeddict-item, list-item]
        groups.append(explain(single, "", getattr(model, "model_fields", {})))
    return groups


def _copy_tables(tables: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy_tables(value) if isinstance(value, Mapping) else value for key, value in tables.items()}


def complete(config: ExperimentConfig, options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The configuration as TOML tables with every default written out; `options` are the checked ones of each section."""
    tables: dict[str, Any] = config.model_dump(exclude_none=True)
    for section, values in options.items():
        tables[section].update({key: value for key, value in values.items() if value is not None})
    return tables


__all__ = ["ExperimentConfig", "complete", "did_you_mean", "parse_config", "read_toml", "set_key"]
