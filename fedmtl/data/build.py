"""From a configuration to data spread over clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fedmtl.components import check_options, choose, options_of
from fedmtl.config_errors import did_you_mean
from fedmtl.data.federated import FederatedData
from fedmtl.data.holdout import hold_out
from fedmtl.data.ownership import task_owners
from fedmtl.data.pool import Pool
from fedmtl.data.shift import make_shift, shift_strength
from fedmtl.data.sources import DEFERRED, SOURCES
from fedmtl.errors import ConfigError
from fedmtl.partitions import PARTITIONS
from fedmtl.randomness import default_generators, derive_seed

if TYPE_CHECKING:
    from fedmtl.config import DataSection, ExperimentConfig


def build_data(config: ExperimentConfig) -> FederatedData:
    """The data of an experiment, spread over its clients.

    Raises
    ------
    ConfigError
        If a name or an option is unknown or out of range, or a combination makes no sense.
    DataError
        If the data cannot be read, or cannot be spread over so many clients.
    """
    source_options, _ = _checked(config.data)
    _refuse_misfits(config)
    seed = config.seeds.data
    with default_generators(derive_seed(seed, "data")):
        pool = SOURCES[config.data.source](seed, config.data.clients, **source_options)
    return _shifted(config, _spread(config, pool))


def build_own_data(config: ExperimentConfig, client: int) -> FederatedData:
    """The data of an experiment as far as this client needs them, if the source can say which; else all of them.

    A client's examples, and what is trained on them, are those of `build_data`, bit for bit.

    Raises
    ------
    ConfigError, DataError
        As `build_data` does.
    """
    section = config.data
    source_options, _ = _checked(section)
    _refuse_misfits(config)
    pool = None
    if can_tell_apart(config):
        seed = config.seeds.data
        with default_generators(derive_seed(seed, "data")):
            pool = DEFERRED[section.source](seed, section.clients, **source_options)
    if pool is None or pool.features_of is None:
        return build_data(config)
    return _shifted(config, _spread(config, pool).of(client, pool.features_of))


def can_tell_apart(config: ExperimentConfig) -> bool:
    """Whether a client's data may be built without those of others."""
    return config.data.source in DEFERRED and config.data.partition != "feature-skew"  # which looks at all features


def _refuse_misfits(config: ExperimentConfig) -> None:
    section = config.data
    if section.partition == "task-disjoint" and config.tasks.ownership != "disjoint":
        raise ConfigError(
            f"data.partition = 'task-disjoint' gives every client one task, but tasks.ownership = "
            f"{config.tasks.ownership!r}: set tasks.ownership = 'disjoint'"
        )
    if section.source == "synthetic" and section.partition != "natural":
        raise ConfigError(
            f"data.source = 'synthetic' makes a data set for each client, which data.partition = {section.partition!r} "
            "would mix: set data.partition = 'natural'"
        )


def _spread(config: ExperimentConfig, pool: Pool) -> FederatedData:
    section, seed = config.data, config.seeds.data
    _, partition_options = _checked(section)
    if config.tasks.names is not None:
        pool = pool.choose(config.tasks.names)
    owners = task_owners(config.tasks.ownership, section.clients, len(pool.tasks), seed)
    with default_generators(derive_seed(seed, "partition")):
        parts = PARTITIONS[section.partition](pool, section.clients, seed, **partition_options)
    shards, validation = hold_out(parts, section.validation_fraction, seed)
    data = FederatedData(
        *(pool.tasks, pool.train, pool.test, shards, validation, owners), client_names=pool.names_of(parts)
    )
    if config.tasks.only is not None:
        data = data.only(config.tasks.only)
    if config.training.tiny_clients == "keep_last_batch":
        return data
    kept = data.without_tiny(config.training.batch_size)  # refuses a task that nobody would train
    return kept if config.training.tiny_clients == "skip_client" else data


def _shifted(config: ExperimentConfig, data: FederatedData) -> FederatedData:
    """The data as the clients see them, where their features are to differ."""
    section = config.data
    shift = make_shift(section.shift, section.shift_strength, section.clients, config.seeds.data)
    return data if shift is None else data.shifted(shift)


def data_options(config: ExperimentConfig) -> dict[str, Any]:
    """The checked options of the experiment's source and partition, defaults filled in.

    Raises
    ------
    ConfigError
        If a source, partition or option is unknown, a value has the wrong type or lies outside its range, or a shift
        and its strength do not go together.
    """
    source_options, partition_options = _checked(config.data)
    shift_strength(config.data.shift, config.data.shift_strength)
    options = {**source_options, **partition_options}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}


def _checked(section: DataSection) -> tuple[dict[str, Any], dict[str, Any]]:
    source = choose(SOURCES, section.source, "data.source")
    partition = choose(PARTITIONS, section.partition, "data.partition")
    names = [{option.name for option in options_of(build)} for build in (source, partition)]
    known = [*type(section).model_fields, *sorted(names[0] | names[1])]
    for key in section.options:
        if key not in known:
            raise ConfigError(
                f"data.{key} is not a key of source {section.source!r} or partition {section.partition!r}"
                f"{_owner_hint(key) or did_you_mean(key, known)}; known: {', '.join(known)}"
            )
    checked = [
        check_options(build, {key: value for key, value in section.options.items() if key in own}, "data", name)
        for build, own, name in zip((source, partition), names, (section.source, section.partition), strict=True)
    ]
    return checked[0], checked[1]


def _owner_hint(key: str) -> str:
    """Whose option this is, if it is another component's."""
    owners = [*_with_option(key, "source", SOURCES), *_with_option(key, "partition", PARTITIONS)]
    return f" (it belongs to {', '.join(owners)})" if owners else ""


def _with_option(key: str, kind: str, table: Mapping[str, Callable[..., Any]]) -> Iterable[str]:
    for name, build in table.items():
        if any(option.name == key for option in options_of(build)):
            yield f"{kind} {name!r}"
