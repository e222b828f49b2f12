"""The configuration of an experiment: one TOML file, every key with a default.

The sections `data`, `model`, `devices`, `strategy` and `balancing` name a component and may hold that component's own
options beside the keys given here; :mod:`fedmtl.components` checks those against the component's signature.
Long because all sections stand in one place.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedmtl.config_errors import by_key, explain
from fedmtl.errors import ConfigError
from fedmtl.paths import working_directory, written

DEFAULT_VERSIONS = 400
Positive = Annotated[int, Field(gt=0)]


def _file_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise ValueError("letters, digits, '.', '_' and '-', with a letter or digit first")
    return text


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _ComponentSection(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

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
    only: str | None = None  # learn this one of them alone, on the clients that own it among all; others sit idle


class ModelSection(_ComponentSection):
    """The section `model`: the shared backbone."""

    name: str = "mlp"


class DevicesSection(_ComponentSection):
    """How fast the clients' devices are."""

    kind: str = "uniform"


class StrategySection(_ComponentSection):
    """The section `strategy`: what the server does."""

    name: str = "fedqs"
    guard: Annotated[float, Field(ge=0)] | None = None  # unset: 50 for real clients, 0 (off) in a simulation


class BalancingSection(_ComponentSection):
    """How tasks are weighted against each other."""

    name: str = "ntkmtl-sr"


class CompressionSection(_ComponentSection):
    """How updates are made smaller on their way to the server, whatever the strategy."""

    name: str = "none"


class TrainingSection(_Section):
    """The section `training`: how clients train."""

    epochs: Positive = 2
    batch_size: Positive = 50
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Annotated[float, Field(ge=0)] = 4.0
    proximal: Annotated[float, Field(ge=0)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    tiny_clients: Literal["keep_last_batch", "skip_client", "ref_drop_last"] = "keep_last_batch"  # a short last batch


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
    """When the run ends: at the first of these that is reached; after 400 versions if no count and no time is given."""

    versions: Positive | None = None
    time: Annotated[float, Field(gt=0)] | None = None
    updates: Positive | None = None
    target: TargetSection | None = None
    diverged: bool = False  # end a run that has diverged: an evaluation is not finite, or a loss 100 times its first

    @model_validator(mode="before")
    @classmethod
    def _always_ends(cls, given: Any) -> Any:
        # A target alone may never be reached.
        if isinstance(given, dict) and not {"versions", "time", "updates"} & given.keys():
            return {"versions": DEFAULT_VERSIONS, **given}
        return given


class RecordsSection(_Section):
    """What a run leaves behind."""

    dir: str = "runs"
    evaluate_every: Positive = 10
    checkpoint_every: Positive = 50
    ntk_every: Annotated[int, Field(ge=0)] = 0  # versions between measurements of the model's kernels; 0 for none
    baselines: bool = False  # train single-task models, too, and compare with them
    pictures: list[Literal["png", "svg", "pdf"]] = ["png"]  # the formats of the pictures; none for no pictures


class ExperimentConfig(_Section):
    """A complete experiment: all sections of a configuration."""

    name: Annotated[str, AfterValidator(_file_name)] = "fedqs-digits"
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSection = DataSection()
    tasks: TasksSection = TasksSection()
    model: ModelSection = ModelSection()
    devices: DevicesSection = DevicesSection()
    strategy: StrategySection = StrategySection()
    balancing: BalancingSection = BalancingSection()
    compression: CompressionSection = CompressionSection()
    training: TrainingSection = TrainingSection()
    engine: EngineSection = EngineSection()
    stop: StopSection = StopSection(versions=DEFAULT_VERSIONS)
    records: RecordsSection = RecordsSection()


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; their texts know its folder, which paths among them are relative to.

    Raises
    ------
    ConfigError
        If the file cannot be read or is not TOML; the message names the file and the line.
    """
    try:
        return dict(written(tomllib.loads(path.read_text(encoding="utf-8")), path.absolute().parent))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a valid TOML file: {error}") from None


def to_toml(tables: Mapping[str, Any]) -> str:
    """The tables as the text of a TOML file; values that are None are left out, as TOML has no word for them."""
    import tomli_w

    return tomli_w.dumps(_without_none(tables))


def set_key(tables: dict[str, Any], assignment: str) -> tuple[str, ...]:
    """Apply one ``section.key=value`` and return the key's path.

    The value is read as TOML, and as plain text where it is not TOML.

    Raises
    ------
    ConfigError
        If this is not an assignment, or leads through something that is no section.
    """
    key, equals, text = assignment.partition("=")
    *parents, name = path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise ConfigError(f"--set {assignment}: write section.key=value, such as devices.ratio=20")
    table = tables
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {assignment}: {parent} is not a section")
    table[name] = _value(text)
    return path


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    return parsed["value"] if len(parsed) == 1 else text.strip()


def parse_config(
    tables: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "", *, sent: bool = False
) -> ExperimentConfig:
    """An experiment from TOML tables and ``section.key=value`` overrides.

    Paths that `read_toml` read are relative to their file, others to the working directory, or to nothing if `sent`.

    Raises
    ------
    ConfigError
        If a key, type or value is wrong; names each key, and whether it stands in the file `where` or in an override.
    """
    folder = None if sent else working_directory()
    merged = written(tables, folder)
    assigned = {set_key(merged, assignment): f"--set {assignment}" for assignment in overrides}
    try:
        return ExperimentConfig.model_validate(written(merged, folder))
    except ValidationError as error:
        lines = []
        for path, faults in by_key(error.errors(), _path_of_key).items():
            origin = _origin(path, tables, assigned) or where
            line = explain(".".join(map(str, path)), faults, _fields(path[:-1]), _place(path))
            lines.append(f"{origin}: {line}" if origin else line)
        raise ConfigError("\n".join(lines)) from None


def _origin(path: tuple[Any, ...], tables: Mapping[str, Any], assigned: Mapping[tuple[str, ...], str]) -> str:
    """The override that set this key, or that made a section of it which the tables do not have; empty if none did."""
    for depth in range(len(path), 0, -1):
        if path[:depth] in assigned:
            return assigned[path[:depth]]
    within = [text for key, text in assigned.items() if key[: len(path)] == path]
    table: Any = tables
    for part in path:
        if not isinstance(table, Mapping) or part not in table:
            return next(iter(within), "")
        table = table[part]
    return ""


def _path_of_key(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """As much of pydantic's path as leads through sections, and one step more."""
    depth = next((n for n in range(1, len(path)) if not _fields(path[:n])), len(path))
    return path[:depth]


def _fields(path: Sequence[str]) -> list[str]:
    """The keys of the section at this path; none if there is no such section."""
    model: type[BaseModel] = ExperimentConfig
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        sections = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        found = next((one for one in sections if issubclass(one, BaseModel)), None)
        if found is None:
            return []
        model = found
    return list(model.model_fields)


def _place(path: Sequence[str]) -> str:
    """Where an unknown key would be known, if it stands in the wrong section."""
    homes = [section for section in ExperimentConfig.model_fields if path[-1] in _fields((section,))]
    return f" here, but [{homes[0]}] has one" if homes and homes[0] not in path[:-1] else ""


def _without_none(value: Any) -> Any:
    return {k: _without_none(v) for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


def complete(config: ExperimentConfig, options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The configuration as tables with every default written out; `options` are each component's, as checked."""
    tables: dict[str, Any] = config.model_dump(exclude_none=True)
    for section, values in options.items():
        tables[section].update({key: value for key, value in values.items() if value is not None})
    return tables
