"""The configuration of an experiment: one TOML file, every key with a default.

The sections `data`, `model`, `devices`, `strategy` and `balancing` name a component and may hold that component's own
options beside the keys given here; :mod:`fedmtl.components` checks those against the component's signature. A key's
meaning, unit and range stand beside it, as those of a component's option do.

Long because every key has its meaning beside it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fedmtl.components import Param, fields_of
from fedmtl.config_errors import by_key, explain
from fedmtl.errors import ConfigError
from fedmtl.paths import working_directory, written
from fedmtl.settings import ClipBy, ShiftKind, TinyClients
from fedmtl.text import is_valid_text

DEFAULT_VERSIONS = 400

UNSET = "unset"
"""What stands for the value of a key that is not there."""


def _file_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", text):
        raise ValueError("letters, digits, '.', '_' and '-', with a letter or digit first, at most 200 together")
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

    source: Annotated[str, Param("what the examples are")] = "digits"
    seed: Annotated[
        int | None,
        Param(
            "seed of the examples that are drawn, of partition and shift, of who owns which task and of what is "
            "held out; unset: the run's",
            ge=0,
        ),
    ] = None
    clients: Annotated[int, Param("how many clients there are", gt=0)] = 100
    partition: Annotated[str, Param("how the examples are spread over the clients")] = "dirichlet"
    validation_fraction: Annotated[
        float, Param("share of its own examples that each client holds out to evaluate on", ge=0, lt=1)
    ] = 0.2
    shift: Annotated[
        ShiftKind,
        Param(
            "how each client's features differ, held-out ones too, the test set's not: images turned, or noise added"
        ),
    ] = "none"
    shift_strength: Annotated[
        float | None,
        Param(
            "the largest rotation to either side, degrees, at most 180; or the largest deviation of the noise, in the "
            "unit of the features; clients have evenly spaced ones in random order; unset: 45 degrees, or 0.1",
            ge=0,
        ),
    ] = None


class TasksSection(_Section):
    """Which tasks are learned, and which client owns which."""

    names: Annotated[list[str] | None, Param("the tasks to learn, in this order; all that the data have if unset")] = (
        None
    )
    ownership: Annotated[
        Literal["all", "random", "disjoint", "skewed"],
        Param(
            "which tasks a client owns: all; each with probability 1/2; exactly one; or task k, from 0, with "
            "probability 2^-k"
        ),
    ] = "all"
    only: Annotated[
        str | None, Param("learn this task alone, on the clients that own it among all; the others sit idle")
    ] = None


class ModelSection(_ComponentSection):
    """The shared backbone; each task has a linear head on it."""

    name: Annotated[str, Param("which backbone")] = "mlp"
    seed: Annotated[int | None, Param("seed of the first parameters; unset: the run's", ge=0)] = None


class DevicesSection(_ComponentSection):
    """How fast the clients' devices are."""

    kind: Annotated[str, Param("how speeds are spread over the clients")] = "uniform"
    seed: Annotated[
        int | None, Param("seed of the speeds, of their jitter, and of who goes away when; unset: the run's", ge=0)
    ] = None


class StrategySection(_ComponentSection):
    """What the server does."""

    name: Annotated[str, Param("which method")] = "fedqs"
    guard: Annotated[
        float | None,
        Param(
            "an update longer than so many times the running median is rejected; 0 for never; unset: 50 for real "
            "clients, 0 in a simulation",
            ge=0,
        ),
    ] = None


class BalancingSection(_ComponentSection):
    """How tasks are weighted against each other."""

    name: Annotated[str, Param("which balancer, or which rule of the server's")] = "ntkmtl-sr"


class CompressionSection(_ComponentSection):
    """How updates are made smaller on their way to the server, whatever the strategy."""

    name: Annotated[str, Param("how, or 'none'")] = "none"


class TrainingSection(_Section):
    """How clients train: stochastic gradient descent, unless the strategy's policy says otherwise."""

    epochs: Annotated[int | None, Param("passes over a client's examples in a job; unset where steps is set", gt=0)] = 2
    steps: Annotated[
        int | None,
        Param(
            "local steps of a job in place of epochs, through as many shuffled passes as they take; neither counts "
            "where the strategy says how many steps an order has",
            gt=0,
        ),
    ] = None
    batch_size: Annotated[int, Param("examples of a step", gt=0)] = 50
    learning_rate: Annotated[float, Param("learning rate of a step", gt=0)] = 0.1
    momentum: Annotated[float, Param("heavy-ball momentum, which starts anew in every job", ge=0, lt=1)] = 0.0
    clip: Annotated[float, Param("upper bound of a gradient's L2 norm; 0 for none", ge=0)] = 4.0
    clip_by: Annotated[
        ClipBy,
        Param(
            "what clip bounds: the gradient of the whole model; or that of the backbone (the shared gradient) and that "
            "of each head, each by itself"
        ),
    ] = "model"
    proximal: Annotated[float, Param("mu of the term mu/2 ||w - w_received||^2 of the loss", ge=0)] = 0.0
    weight_decay: Annotated[float, Param("factor d of the term d/2 ||w||^2 of the loss", ge=0)] = 0.0
    tiny_clients: Annotated[
        TinyClients,
        Param(
            "an epoch's last batch, if it is short: trained on; trained on, but clients without a whole batch are not "
            "asked; or dropped, as the code of FedQS's authors does"
        ),
    ] = "keep_last_batch"

    @model_validator(mode="before")
    @classmethod
    def _steps_in_place_of_epochs(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("steps") is not None:
            return {"epochs": None, **given}
        return given

    @field_validator("steps")
    @classmethod
    def _one_of_two(cls, steps: int | None, others: ValidationInfo) -> int | None:
        if steps is not None and (epochs := others.data.get("epochs")) is not None:
            raise ValueError(
                f"left out, or training.epochs = {epochs} be unset: a job is counted in passes or in steps"
            )
        return steps


class EngineSection(_Section):
    """Where clients train in a simulation; the results are the same wherever it is."""

    workers: Annotated[Literal["inline", "ray"], Param("in this process, or in others with Ray")] = "inline"
    count: Annotated[int, Param("processes, where workers = 'ray'", gt=0)] = 1
    device: Annotated[str, Param("torch's name of the device that computes, such as 'cpu' or 'cuda:0'")] = "cpu"


class TargetSection(_Section):
    """Stop when a task's metric on the test set reaches a value."""

    task: Annotated[str, Param("the task")]
    value: Annotated[float, Param("the value, in the unit of the task's metric")]


class StopSection(_Section):
    """When the run ends: at the first of these that is reached; after 400 versions if no count and no time is given."""

    versions: Annotated[int | None, Param("versions of the global model", gt=0)] = None
    time: Annotated[float | None, Param("seconds of virtual time; of real time with real clients", gt=0)] = None
    updates: Annotated[int | None, Param("updates that arrived and were not rejected", gt=0)] = None
    target: Annotated[TargetSection | None, Param("a task's metric on the test set that is good enough")] = None
    diverged: Annotated[
        bool, Param("end a run that has diverged: an evaluation is not finite, or a loss 100 times its first")
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _always_ends(cls, given: Any) -> Any:
        # A target alone may never be reached.
        if isinstance(given, dict) and not {"versions", "time", "updates"} & given.keys():
            return {"versions": DEFAULT_VERSIONS, **given}
        return given


class RecordsSection(_Section):
    """What a run leaves behind."""

    dir: Annotated[str, Param("folder of the runs' directories, each of the run's name")] = "runs"
    evaluate_every: Annotated[int, Param("versions from one evaluation to the next", gt=0)] = 10
    checkpoint_every: Annotated[int, Param("versions from one checkpoint to the next", gt=0)] = 50
    ntk_every: Annotated[
        int, Param("versions from one measurement of the model's kernels to the next; 0 for none", ge=0)
    ] = 0
    convergence: Annotated[
        bool, Param("measure every server step: how far model and clients moved, how alike clients are, who took part")
    ] = False
    baselines: Annotated[bool, Param("train single-task models, too, and compare with them")] = False
    pictures: Annotated[
        list[Literal["png", "svg", "pdf"]], Param("the formats of the pictures; none for no pictures")
    ] = ["png"]


class Seeds(NamedTuple):
    """The seeds of what a run starts from.

    Attributes
    ----------
    data
        Of the examples that a source draws, of partition and shift, of who owns which task, and of what is held out.
    devices
        Of speeds, of the jitter of each job, and of who goes away when.
    model
        Of the first parameters.
    """

    data: int
    devices: int
    model: int


class ExperimentConfig(_Section):
    """A complete experiment: all sections of a configuration."""

    name: Annotated[str, Param("what the run is called, and its directory"), AfterValidator(_file_name)] = (
        "fedqs-digits"
    )
    seed: Annotated[
        int, Param("seed of every random draw that data.seed, devices.seed or model.seed does not hold fixed", ge=0)
    ] = 0
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

    @property
    def seeds(self) -> Seeds:
        """The seeds of what a run starts from: the run's own where a section has none."""
        own = (self.data.seed, self.devices.seed, self.model.seed)
        return Seeds(*(self.seed if seed is None else seed for seed in own))


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

    The value is read as TOML, and as plain text where it is not TOML; ``unset``, without quotes, is None: the key is
    as if it were not there. A part of the key that holds dots or equals signs stands in quotes, as in TOML.

    Raises
    ------
    ConfigError
        If this is not an assignment, or leads through something that is no section.
    """
    path, text = _divided(assignment)
    if text is None or not path or not all(path):
        raise ConfigError(f"--set {assignment}: write section.key=value, such as devices.ratio=20")
    *parents, name = path
    table = tables
    for parent in parents:
        if table.get(parent) is None:
            table[parent] = {}
        table = table[parent]
        if not isinstance(table, dict):
            raise ConfigError(f"--set {assignment}: {parent} is not a section")
    table[name] = None if text.strip() == UNSET else _value(text)
    return path


def _divided(assignment: str) -> tuple[tuple[str, ...], str | None]:
    """The path of a key and the text of its value; None for the text if it is not told where the key ends."""
    key, equals, text = assignment.partition("=")
    if not set(key) & {'"', "'"}:
        return tuple(part.strip() for part in key.split(".")), text if equals else None
    for equals_sign in re.finditer("=", assignment):
        try:
            table: Any = tomllib.loads(f"{assignment[: equals_sign.start()]} = 0")
        except tomllib.TOMLDecodeError:
            continue  # within the quotes
        path = []
        while isinstance(table, dict) and len(table) == 1:
            ((part, table),) = table.items()
            path.append(part)
        return tuple(path), assignment[equals_sign.end() :]
    return (), None


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
    for path, text in _misfits(merged):
        origin, key = _origin(path, tables, assigned) or where, ".".join(path)
        line = f"{key} = {text!a}: is not valid Unicode, or has a NUL in it, so that no file can hold or have it"
        raise ConfigError(f"{origin}: {line}" if origin else line)
    try:
        return ExperimentConfig.model_validate(_without_unset(written(merged, folder)))
    except ValidationError as error:
        lines = []
        for path, faults in by_key(error.errors(), _path_of_key).items():
            origin = _origin(path, tables, assigned) or where
            known, meaning = _fields(path[:-1]), _meaning(path)
            line = explain(".".join(map(str, path)), faults, known, _place(path), meaning)
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


def section_at(path: Sequence[str]) -> type[BaseModel] | None:
    """The section at this path, or None if there is no such section."""
    model: type[BaseModel] = ExperimentConfig
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        sections = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        found = next((one for one in sections if issubclass(one, BaseModel)), None)
        if found is None:
            return None
        model = found
    return model


def _fields(path: Sequence[str]) -> list[str]:
    """The keys of the section at this path; none if there is no such section."""
    section = section_at(path)
    return [] if section is None else list(section.model_fields)


def _meaning(path: Sequence[str]) -> str:
    """What the key at this path means; nothing if there is no such key, or if it is a section."""
    section = section_at(path[:-1])
    return "" if section is None else next((o.param.help for o in fields_of(section) if o.name == path[-1]), "")


def _place(path: Sequence[str]) -> str:
    """Where an unknown key would be known, if it stands in the wrong section."""
    homes = [section for section in ExperimentConfig.model_fields if path[-1] in _fields((section,))]
    return f" here, but [{homes[0]}] has one" if homes and homes[0] not in path[:-1] else ""


def _misfits(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Texts within a value that cannot be written to a file or name one, with the paths of their keys."""
    if isinstance(value, str):
        if "\0" in value or not is_valid_text(value):
            yield path, value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _misfits(key, path)
            yield from _misfits(entry, (*path, key))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _misfits(entry, path)


def _without_unset(tables: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables without the keys that are None, as far as they are known here; a component knows its own."""
    known = _fields(path)
    return {
        key: _without_unset(value, (*path, key)) if isinstance(value, Mapping) else value
        for key, value in tables.items()
        if value is not None or key not in known
    }


def _without_none(value: Any) -> Any:
    return {k: _without_none(v) for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


def complete(config: ExperimentConfig, options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The configuration as tables with every default written out; `options` are each component's, as checked."""
    tables: dict[str, Any] = config.model_dump(exclude_none=True)
    for section, values in options.items():
        tables[section].update({key: value for key, value in values.items() if value is not None})
    return tables
